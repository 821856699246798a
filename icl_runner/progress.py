"""A progress bar over the samples of a run, by a hook of inspect-ai's."""

from collections.abc import Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, SampleEnd, hooks
from tqdm import tqdm

_bars: list[tqdm] = []


@hooks(name="spae-progress", description="counts finished samples")
class Progress(Hooks):
    def enabled(self) -> bool:
        return bool(_bars)

    async def on_sample_end(self, data: SampleEnd) -> None:
        for bar in _bars:
            bar.update()


@contextmanager
def shown_on(bar: tqdm) -> Iterator[None]:
    """Count the samples that finish meanwhile."""
    _bars.append(bar)
    try:
        yield
    finally:
        _bars.remove(bar)
