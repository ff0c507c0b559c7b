"""How much privacy a sequence of noisy releases costs, and how much noise a budget needs.

Everything that this project releases under record-level differential privacy is a Poisson-sampled
Gaussian mechanism: DP-SGD steps with sampling rate q < 1, and noisy metrics as its case q = 1.  So
one description, :class:`Segment`, serves both, and they compose in one accountant.

Two accountants are run and compared: PRV (`client.accounting.prv`), numerical composition of
privacy losses, and RDP (`client.accounting.rdp`), Rényi differential privacy.  Both give upper
bounds, and the smaller one that can be trusted is reported; it never lies below the true epsilon.

What may be chosen on the way.  Both bounds hold for adaptive composition: each mechanism may
depend on the outputs of those before it (its query, the model that it starts from), as long as its
noise multiplier, sampling rate and steps were fixed before the first output.  Neither the
composition of privacy curves nor the minimum over Rényi orders is proven where these numbers
themselves are chosen after looking at outputs ("fully adaptive" composition, Rogers et al. 2016):
stopping where composed curves reach a limit is then not private in general.  A partner's lifetime
limit over several runs is of that kind; `client/lifetime.py` holds the rule that is proven for it.

Modules: `mechanisms` (what is accounted for), `rdp` and `prv` (the accountants), `composition`
(the better of the two), `calibration` (the noise that a budget needs).
"""

from client.accounting.calibration import calibrate, smallest_noise
from client.accounting.composition import epsilon, least_epsilon, privacy_profile
from client.accounting.mechanisms import (
    Budget,
    BudgetExceeded,
    Epsilon,
    Segment,
    check_delta,
    merge,
)
from client.accounting.rdp import rdp_epsilon, renyi, worst_rdp_epsilon

__all__ = [
    "Budget",
    "BudgetExceeded",
    "Epsilon",
    "Segment",
    "calibrate",
    "check_delta",
    "epsilon",
    "least_epsilon",
    "merge",
    "privacy_profile",
    "rdp_epsilon",
    "renyi",
    "smallest_noise",
    "worst_rdp_epsilon",
]
