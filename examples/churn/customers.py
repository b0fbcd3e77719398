"""Synthetic customers of a telephone and internet provider, and how they come to leave.

The process is declared here in full, so the best possible score of any model is known. Nobody's data is in it.

A customer's log-odds of leaving within the next quarter are BASE plus:
- less the longer they stayed, quickly at first: ``-0.55 * log2(1 + tenure / 6)``;
- 1.5 without a fixed term, 0.2 with one year of it, -1.2 with two;
- 0.35 for each call to support, and 1.3 more from the third on for those without a fixed term;
- 0.30 for each late payment, none of it for those who pay automatically;
- 0.045 for each unit of money by which the bill exceeds what the same services cost on the list;
- 0.5 for fibre with no extra service, -0.12 for each extra service.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The model's input columns, in order. Money is per month; counts are of the last 12 months.
FEATURES = (
    "tenure_months",
    "contract_months",
    "monthly_charge",
    "fibre",
    "extra_services",
    "support_calls",
    "late_payments",
    "automatic_payment",
)
OUTCOMES = ("stays", "leaves")
BASE = -1.35
CONTRACT_MONTHS = (1, 12, 24)


@dataclass(frozen=True, slots=True)
class Customers:
    """A sample: ``features`` float32 [N, F], ``left`` int64 [N], and the true ``probability`` of leaving [N]."""

    features: NDArray[np.float32]
    left: NDArray[np.int64]
    probability: NDArray[np.float64]


def generate(count: int, seed: int) -> Customers:
    """Draw customers; the same count and seed give the same ones."""
    rng = np.random.default_rng(seed)
    tenure = np.minimum(rng.exponential(26.0, count), 96.0).round()
    contract = rng.choice(CONTRACT_MONTHS, count, p=(0.55, 0.25, 0.20))
    fibre = rng.random(count) < 0.45
    extras = rng.binomial(6, 0.35, count)
    list_price = 22.0 + 31.0 * fibre + 6.5 * extras
    charge = np.clip(list_price + rng.normal(0.0, 9.0, count), 12.0, None).round(2)
    calls = rng.poisson(np.where(fibre, 1.1, 0.6))
    late = rng.poisson(0.7, count)
    automatic = rng.random(count) < 0.5

    log_odds = BASE - 0.55 * np.log2(1.0 + tenure / 6.0)
    log_odds += np.select([contract == 1, contract == 12], [1.5, 0.2], -1.2)
    log_odds += 0.35 * calls + 1.3 * ((calls >= 3) & (contract == 1))
    log_odds += 0.30 * late * ~automatic
    log_odds += 0.045 * (charge - list_price)
    log_odds += 0.5 * (fibre & (extras == 0)) - 0.12 * extras
    probability = 1.0 / (1.0 + np.exp(-log_odds))

    columns = (tenure, contract, charge, fibre, extras, calls, late, automatic)
    return Customers(
        features=np.column_stack(columns).astype(np.float32),
        left=(rng.random(count) < probability).astype(np.int64),
        probability=probability,
    )
