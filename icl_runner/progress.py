"""How many samples of a run are done, by a hook of inspect-ai's."""

from collections.abc import Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, SampleEnd, hooks

from spae.progress import Progress

_shown: list[Progress] = []


@hooks(name="spae-progress", description="counts finished samples")
class FinishedSamples(Hooks):
    def enabled(self) -> bool:
        return bool(_shown)

    async def on_sample_end(self, data: SampleEnd) -> None:
        for one in _shown:
            one.update()


@contextmanager
def shown_on(progress: Progress) -> Iterator[None]:
    """Count the samples that finish meanwhile."""
    _shown.append(progress)
    try:
        yield
    finally:
        _shown.remove(progress)
