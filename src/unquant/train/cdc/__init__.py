"""The training of `cdc`, everything in one stage (docs/training.md)."""

from unquant.train.cdc.stage1 import Diffusion, DiffusionConfig
from unquant.train.judges import Wanted
from unquant.train.klt import start_from_klt
from unquant.train.recipe import Recipe
from unquant.train.stages import Stage, Training

__all__ = ["TRAINING"]


def _wanted(recipe: Recipe) -> Wanted:
    config = recipe.table(DiffusionConfig)
    return Wanted((config.lpips_net,) if config.lpips_weight else (), table="diffusion")


TRAINING = Training(
    tables={"diffusion": DiffusionConfig},
    stages={
        1: Stage(
            objective=lambda model, recipe, judges: Diffusion(model, recipe.table(DiffusionConfig), judges.one),
            wanted=_wanted,
            from_klt=start_from_klt,
        ),
    },
)
