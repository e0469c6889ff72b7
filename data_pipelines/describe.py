r"""What one should know of a store before training on it, as text and picture.

    python -m data_pipelines.describe --data_dir=data/alibaba \
        --output=alibaba.png

Prints, exactly counted: how many behaviors a request's history has and how
many a model leaves out; candidates a request; how long behaviors lie apart and
where TimeChunking cuts them; behaviors, requests and click rate by day; which
shares of each field are missing or out of vocabulary.

The picture shows the same. It is drawn if --output names it, and needs
matplotlib: pip install 'sparsectr[plots]'.
"""

import importlib
import importlib.util
from collections.abc import Sequence

from absl import flags

from data_pipelines.description.describe_text import describe
from data_pipelines.description.store_statistics import StoreStatistics
from data_pipelines.stores.store import Store
from sparsectr.config import Config, DataConfig
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.process import command


def _data_config(store: Store) -> DataConfig:
    """Returns how the data set's own recipe reads histories."""
    dataset = store.manifest.get("dataset")
    if importlib.util.find_spec(f"configs.datasets.{dataset}") is None:
        return DataConfig()
    module = importlib.import_module(f"configs.datasets.{dataset}")
    config: Config = module.CONFIG
    return config.data


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data_dir", None, "Folder of the store.", required=True)
    flags.DEFINE_string(
        "output",
        None,
        "PNG file to draw to, replaced if it exists. Without it nothing is "
        "drawn.",
    )
    flags.DEFINE_integer(
        "max_history",
        None,
        "Newest behaviors of a history that the model will read (default: what "
        "the recipe of the data set says).",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "history_delay",
        None,
        "Seconds until a behavior is in a history (default: likewise).",
        lower_bound=0,
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    output = command.picture_to_write("output")
    if output is not None:
        with command.needs_matplotlib():
            from data_pipelines.description.store_picture import draw
    store = Store(local_copy(values.data_dir))
    recipe = _data_config(store)
    delay = values.history_delay
    statistics = StoreStatistics(
        store,
        max_history=values.max_history or recipe.max_history,
        history_delay=recipe.history_delay if delay is None else delay,
    )
    print(describe(store, statistics, values.data_dir), flush=True)
    if output is not None:
        draw(store, statistics, output, values.data_dir)
        print(f"\n{output}: the same as a picture")


if __name__ == "__main__":
    define_flags()
    command.run(main)
