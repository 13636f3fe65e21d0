"""Claims of papers as commands: ``python -m bench claims [NAME ...]``.

Each file has the claims of one family; `claim.py` says what a claim is and when it is
reproduced.
"""

from bench.claims import isometry, propagation, residual, theory, training
from bench.claims.claim import Claim

_FAMILIES = (propagation, isometry, theory, residual, training)

CLAIMS: dict[str, Claim] = {
    claim.name: claim for family in _FAMILIES for claim in family.CLAIMS
}
