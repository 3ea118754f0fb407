"""The training of `av1`: f, which draws pictures anew, then its realism (docs/training.md).

Of a new model f is the identity: it needs no start from principal directions.
"""

from unquant.networks.av1 import Av1Config
from unquant.train.av1.pairs import PairsConfig
from unquant.train.av1.stage1 import RedrawConfig, RedrawStage
from unquant.train.av1.stage3 import Realism, RealismConfig
from unquant.train.judges import Wanted
from unquant.train.recipe import Recipe
from unquant.train.stages import Stage, Training

__all__ = ["TRAINING"]


def _wanted1(recipe: Recipe) -> Wanted:
    config = recipe.table(RedrawConfig)
    return Wanted((config.lpips_net,) if config.lpips_weight else (), bool(config.dists_weight), table="redraw")


def _wanted3(recipe: Recipe) -> Wanted:
    config = recipe.table(RealismConfig)
    return Wanted(config.networks, bool(config.dists_weight or config.adversarial_weight))


TRAINING = Training(
    tables={"redraw": RedrawConfig, "realism": RealismConfig, "pairs": PairsConfig},
    stages={
        1: Stage(
            objective=lambda model, recipe, judges: RedrawStage(
                model, recipe.table(RedrawConfig), recipe.table(PairsConfig), judges.one, judges.dists
            ),
            wanted=_wanted1,
        ),
        3: Stage(
            objective=lambda model, recipe, judges: Realism(
                model, recipe.table(RealismConfig), recipe.table(PairsConfig), *judges
            ),
            wanted=_wanted3,
            config=lambda recipe, weights: Av1Config.from_dict(weights.config),
        ),
    },
)
