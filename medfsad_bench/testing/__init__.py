"""The contract that every method has to keep, as a check that anyone can run on their own class.

A score may depend on its image, the support, the weights and the seed, and on nothing else: not on the other images of
a batch, their order or their number, nor on what was scored before. Every clause begins with an empty cache, so that
`context.cached` and `context.paired` can't hand a check the value that a batch made. What this can't find is written
in `leaderboard/THREATS.md`.
"""

from medfsad_bench.testing.clauses import Clause
from medfsad_bench.testing.contract import check_method, contract
from medfsad_bench.testing.phantoms import phantom_images
from medfsad_bench.testing.training import shortened, training_contract

__all__ = ["Clause", "check_method", "contract", "phantom_images", "shortened", "training_contract"]
