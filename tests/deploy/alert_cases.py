"""For each alert, series with which it fires and series, near them, with which it stays silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """What Prometheus has scraped, in promtool's notation and once a minute, and when it is asked."""

    series: Mapping[str, str]
    after: str
    evaluated: str = "1m"

    def document(self, alert: str, rules: list[str], groups: list[str], *, fires: bool) -> dict[str, object]:
        """The file that promtool reads."""
        expected = [{"labels": "{}", "value": 1}] if fires else []
        asked = {
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
            "eval_time": self.after,
            "exp_samples": expected,
        }
        return {
            "rule_files": rules,
            "evaluation_interval": self.evaluated,
            # Else promtool takes groups in any order, and an alert may look before what it looks at is recorded.
            "group_eval_order": groups,
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
                    "promql_expr_test": [asked],
                }
            ],
        }


AT = 'job="inferd", instance="a"'
ONE = f'{AT}, model="m", version="1"'
READY = f"inferd_ready{{{AT}}}"


def ends(minutes: int, bad: int, code: str = "INTERNAL", *, before: int = 0) -> dict[str, str]:
    """1000 requests a minute that end OK and, after `before` minutes, `bad` ones."""
    return {
        READY: f"1x{minutes}",
        f'inferd_requests_total{{{ONE}, code="OK"}}': f"0+1000x{minutes}",
        f'inferd_requests_total{{{ONE}, code="{code}"}}': f"0x{before} {bad}+{bad}x{minutes - before}",
    }


def refused(minutes: int, reason: str) -> dict[str, str]:
    """50 of 1050 requests a minute are refused for a reason, and no request ever had a bad code."""
    return {
        READY: f"1x{minutes}",
        f'inferd_requests_total{{{ONE}, code="OK"}}': f"0+1000x{minutes}",
        f'inferd_requests_total{{{ONE}, code="RESOURCE_EXHAUSTED"}}': f"0+50x{minutes}",
        f'inferd_shed_requests_total{{{ONE}, reason="{reason}"}}': f"0+50x{minutes}",
    }


def batches(minutes: int, rows: int, busy: float, pending: int = 0) -> dict[str, str]:
    """100 batches a minute of `rows` rows in all."""
    return {
        f"inferd_rows_total{{{ONE}}}": f"0+{rows}x{minutes}",
        f'inferd_batches_total{{{ONE}, close_reason="ready"}}': f"0+60x{minutes}",
        f'inferd_batches_total{{{ONE}, close_reason="full"}}': f"0+40x{minutes}",
        f"inferd_engine_busy_seconds_total{{{ONE}}}": f"0+{60 * busy}x{minutes}",
        f"inferd_pending_requests{{{ONE}}}": f"{pending}x{minutes}",
    }


def durations(minutes: int, name: str, labels: str, le: Mapping[str, int]) -> dict[str, str]:
    """Observations a minute at or below each bound."""
    return {f'{name}_bucket{{{labels}, le="{bound}"}}': f"0+{more}x{minutes}" for bound, more in le.items()}


def waiting(queue: Mapping[str, int], request: Mapping[str, int]) -> dict[str, str]:
    """A quarter of an hour of both."""
    return durations(20, "inferd_queue_duration_seconds", ONE, queue) | durations(
        20, "inferd_request_duration_seconds", f'{ONE}, code="OK"', request
    )


GONE = {'up{job="other", instance="a"}': "1x20"}
DOWN = {'up{job="inferd", instance="a"}': "1x5 0x20"}
UP = {'up{job="inferd", instance="a"}': "1x20"}
STILL = {READY: "0x30", f"inferd_draining{{{AT}}}": "0x30"}

CASES: Mapping[str, tuple[Case, Case]] = {
    "InferdAbsent": (Case(GONE, "10m"), Case(UP, "10m")),
    "InferdDown": (Case(DOWN, "15m"), Case({'up{job="inferd", instance="a"}': "1x5 0x3 1x20"}, "15m")),
    "InferdNotReady": (
        Case(STILL, "20m"),
        Case(STILL | {f"inferd_draining{{{AT}}}": "1x30"}, "20m"),
    ),
    "InferdReadinessFlaps": (
        Case({f"inferd_model_ready{{{ONE}}}": "1 0 1 0 1 0 1 0 1x10"}, "12m"),
        Case({f"inferd_model_ready{{{ONE}}}": "0x3 1x3 0x3 1x10"}, "12m"),
    ),
    "InferdModelFailed": (
        Case({f'inferd_model_state{{{ONE}, state="FAILED"}}': "0x5 1x5"}, "8m"),
        Case(
            {
                f'inferd_model_state{{{ONE}, state="LOADING"}}': "1x10",
                f'inferd_model_state{{{ONE}, state="FAILED"}}': "0x10",
            },
            "8m",
        ),
    ),
    "InferdModelStuck": (
        Case(
            batches(0, 0, 0)
            | {
                f"inferd_pending_requests{{{ONE}}}": "3x20",
                f'inferd_batches_total{{{ONE}, close_reason="ready"}}': "7x20",
            },
            "15m",
        ),
        Case(batches(20, 100, 0.1, pending=3), "15m"),
    ),
    "InferdQueueLong": (
        Case(batches(20, 400, 0.9, pending=40), "15m"),
        Case(batches(20, 400, 0.9, pending=30), "15m"),
    ),
    "InferdQueueDominates": (
        Case(waiting({"0.05": 0, "0.1": 100, "+Inf": 100}, {"0.1": 50, "0.15": 100, "+Inf": 100}), "18m"),
        Case(waiting({"0.001": 100, "0.1": 100, "+Inf": 100}, {"0.1": 50, "0.15": 100, "+Inf": 100}), "18m"),
    ),
    "InferdBatchesSmall": (Case(batches(30, 105, 0.9), "28m"), Case(batches(30, 105, 0.3), "28m")),
    "InferdWorkWasted": (
        Case(batches(30, 100, 0.5) | {f"inferd_wasted_rows_total{{{ONE}}}": "0+20x30"}, "28m"),
        Case(batches(30, 100, 0.5) | {f"inferd_wasted_rows_total{{{ONE}}}": "0+5x30"}, "28m"),
    ),
    "InferdCallersRefused": (
        Case({f'inferd_auth_refusals_total{{{AT}, reason="credentials"}}': "0+10x30"}, "25m"),
        Case({f'inferd_auth_refusals_total{{{AT}, reason="credentials"}}': "0+5x30"}, "25m"),
    ),
    "InferdLoopSlow": (
        Case(durations(20, "inferd_event_loop_lag_seconds", AT, {"0.05": 90, "0.1": 100, "+Inf": 100}), "18m"),
        Case(durations(20, "inferd_event_loop_lag_seconds", AT, {"0.01": 995, "0.1": 1000, "+Inf": 1000}), "18m"),
    ),
    "InferdGpuError": (
        Case({'DCGM_FI_DEV_XID_ERRORS{gpu="0", Hostname="h"}': "0x3 79x3"}, "5m"),
        Case({'DCGM_FI_DEV_XID_ERRORS{gpu="0", Hostname="h"}': "0x6"}, "5m"),
    ),
    # 2% bad is 20 times what is allowed. Silent: the burst is over, and only the long window remembers it.
    "InferdBudgetBurn1h": (
        Case(ends(70, 20), "65m"),
        Case(ends(70, 0) | {f'inferd_requests_total{{{ONE}, code="INTERNAL"}}': "0+40x45 1800x25"}, "65m"),
    ),
    "InferdBudgetBurn6h": (Case(ends(370, 8), "365m"), Case(ends(370, 4), "365m")),
    "InferdBudgetBurn1d": (Case(ends(1450, 5), "1440m", "30m"), Case(ends(1450, 2), "1440m", "30m")),
    "InferdBudgetBurn3d": (Case(ends(4330, 2), "4320m", "30m"), Case(ends(4330, 2, "CANCELLED"), "4320m", "30m")),
}

# What an objective must not forget, beside one case of each.
MORE: Mapping[str, tuple[str, bool, Case]] = {
    "a server that answers nothing well has no OK to compare with": (
        "InferdBudgetBurn1h",
        True,
        Case({READY: "1x70", f'inferd_requests_total{{{ONE}, code="INTERNAL"}}': "0+10x70"}, "65m"),
    ),
    "refusals for want of room count though no code is bad": (
        "InferdBudgetBurn1h",
        True,
        Case(refused(70, "queue"), "65m"),
    ),
    "refusals of one caller who has too much already do not": (
        "InferdBudgetBurn1h",
        False,
        Case(refused(70, "caller"), "65m"),
    ),
    "callers' own mistakes do not": ("InferdBudgetBurn1h", False, Case(ends(70, 900, "INVALID_ARGUMENT"), "65m")),
    "a server without requests is silent": ("InferdBudgetBurn1h", False, Case({READY: "1x70"}, "65m")),
    "a failed load is told by its counter too": (
        "InferdModelFailed",
        True,
        Case({f'inferd_model_loads_total{{{AT}, model="m", result="failed"}}': "0x3 1x7"}, "8m"),
    ),
}
