"""The training of `ratevar`: the codec, its reverse network, then both its decoders for realism (docs/training.md)."""

from unquant.train.judges import Wanted
from unquant.train.klt import start_from_klt
from unquant.train.ratevar.another import adapt
from unquant.train.ratevar.stage1 import Stage1, Stage1Config
from unquant.train.ratevar.stage2 import Stage2, Stage2Config
from unquant.train.ratevar.stage3 import Stage3, Stage3Config
from unquant.train.ratevar.start import fill_codec, fill_realism, fill_reverse, realism_config, reverse_config
from unquant.train.recipe import Recipe
from unquant.train.stages import Stage, Training

__all__ = ["TRAINING"]


def _wanted1(recipe: Recipe) -> Wanted:
    config = recipe.table(Stage1Config)
    return Wanted((config.lpips_net,) if config.lpips_weight else (), table="stage1")


def _wanted3(recipe: Recipe) -> Wanted:
    config = recipe.table(Stage3Config)
    return Wanted(config.networks, bool(config.dists_weight))


TRAINING = Training(
    tables={"stage1": Stage1Config, "stage2": Stage2Config, "stage3": Stage3Config},
    stages={
        1: Stage(
            objective=lambda model, recipe, judges: Stage1(model, recipe.table(Stage1Config), judges.one),
            wanted=_wanted1,
            adapt=adapt,
            fill=fill_codec,
            from_klt=start_from_klt,
        ),
        2: Stage(
            objective=lambda model, recipe, judges: Stage2(model, recipe.table(Stage2Config)),
            config=reverse_config,
            fill=fill_reverse,
        ),
        3: Stage(
            objective=lambda model, recipe, judges: Stage3(model, recipe.table(Stage3Config), *judges),
            wanted=_wanted3,
            config=realism_config,
            fill=fill_realism,
        ),
    },
)
