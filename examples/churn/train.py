"""Train the churn classifier, say how good it is on customers it has not seen, and write it as ONNX.

The model is scikit-learn's gradient boosting, converted by skl2onnx: what one would do at work. Beside onnx and
onnxruntime the two took 8 seconds and 206 MB to install when this was written, and they work with onnx 1.23, so there
was no need for a home-made trainer. Of scikit-learn's two boosters this is the single-threaded one: the number of
cores does not decide which model comes out. The same seed and the same versions write the same bytes.

The model: input ``features`` float32 [N, 8], columns as in customers.FEATURES; outputs ``label`` int64 [N],
0 = stays, 1 = leaves, and ``probability`` float32 [N, 2], of staying and of leaving.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from customers import FEATURES, OUTCOMES, Customers, generate

HELD_OUT = 0.25
# Trees are stored in float32 by ONNX and summed in another order: the last digits differ, no more.
EXPORT_TOLERANCE = 1e-5
EXAMPLES = """\
examples:
  train.py --output models/churn/1/model.onnx
  train.py --output /tmp/churn.onnx --customers 100000 --seed 7

exit codes: 0 written; 1 the exported model disagrees with the trained one; 2 a package is missing
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to write the model")
    parser.add_argument("--customers", type=int, default=20_000, help="how many to generate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20, help="decides customers and model (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.customers < 1000:
        parser.error("--customers must be 1000 or more, or there is nothing to learn from")
    try:
        return _run(options.output, options.customers, options.seed)
    except ImportError as err:
        print(f"train: {err.name} is missing: pip install '.[examples]'", file=sys.stderr)
        return 2


def _run(output: Path, count: int, seed: int) -> int:
    customers = generate(count, seed)
    known = slice(0, round(count * (1.0 - HELD_OUT)))
    unseen = slice(known.stop, count)
    classifier = fit(customers.features[known], customers.left[known], seed)
    report(classifier, customers, known, unseen)

    model = export(classifier)
    error = export_error(classifier, model, customers.features[unseen])
    if error > EXPORT_TOLERANCE:
        print(f"train: ONNX and scikit-learn differ by {error:.1e}: nothing was written", file=sys.stderr)
        return 1
    _write(output, model)
    print(f"{output}: {len(model)} bytes, differs from scikit-learn by {error:.1e} at most")
    return 0


def fit(features: Any, left: Any, seed: int) -> Any:
    """Train; ``seed`` decides which customers each tree sees."""
    from sklearn.ensemble import GradientBoostingClassifier

    settings = {
        "n_estimators": 150,
        "learning_rate": 0.08,
        "max_depth": 3,
        "subsample": 0.7,
        "min_samples_leaf": 40,
    }
    return GradientBoostingClassifier(**settings, random_state=seed).fit(features, left)


def report(classifier: Any, customers: Customers, known: slice, unseen: slice) -> None:
    """Print the scores on held-out customers beside what is trivial and what is possible."""
    from sklearn.metrics import roc_auc_score

    left = customers.left[unseen]
    truth = customers.probability[unseen]
    guess = classifier.predict_proba(customers.features[unseen])[:, 1]
    print(f"{known.stop} customers to learn from, {len(left)} held out, {left.mean():.1%} of those leave")
    print("                       AUC    accuracy")
    print(f"say that nobody leaves 0.500  {(left == 0).mean():.3f}")
    print(f"this model             {roc_auc_score(left, guess):.3f}  {((guess > 0.5) == left).mean():.3f}")
    print(f"the true probability   {roc_auc_score(left, truth):.3f}  {((truth > 0.5) == left).mean():.3f}")


def export(classifier: Any) -> bytes:
    """Convert to ONNX, with the names and the batch axis that a client sees."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    model = convert_sklearn(
        classifier,
        name="churn",
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        final_types=[("label", None), ("probability", None)],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    # One name for the first axis everywhere says that inputs and outputs grow together.
    for tensor in [*model.graph.input, *model.graph.output]:
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    for key, value in (("feature_names", ",".join(FEATURES)), ("outcomes", ",".join(OUTCOMES))):
        model.metadata_props.add(key=key, value=value)
    # skl2onnx lists the operator sets in the order of a set, which changes from run to run.
    in_order = sorted(model.opset_import, key=lambda opset: str(opset.domain))
    del model.opset_import[:]
    model.opset_import.extend(in_order)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def export_error(classifier: Any, model: bytes, features: Any) -> float:
    """Return the largest difference of a probability, or infinity if a label differs on a clear case."""
    # From 1.32 on, ONNX Runtime reports its use to its makers unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    label, probability = session.run(["label", "probability"], {"features": features})
    expected = classifier.predict_proba(features)
    clear = np.abs(expected[:, 1] - 0.5) > EXPORT_TOLERANCE
    if (label != expected.argmax(axis=1))[clear].any():
        return float("inf")
    return float(np.abs(probability - expected).max())


def _write(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
