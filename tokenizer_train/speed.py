"""What a run's steps cost: speed, the share of time spent waiting for images, utilisation, memory."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

import jax

from tokenizer_train.flops import peak


class Speed:
    """Figures over the steps since the last line.

    Model FLOP utilisation = FLOPs of a step x steps/s / (devices x peak FLOP/s of a device), with the FLOPs of
    `flops.step_flops` and the peak of `flops.PEAKS`; left out where the device's peak is not known.

    Args:
        batch_size: images of a step, over all devices together.
        precision: of most products, which decides the peak: a key of `flops.PEAKS`' entries.

    Attributes:
        flops: of one step, over all devices together; 0 until somebody has counted.
    """

    def __init__(self, batch_size: int, precision: str) -> None:
        self._batch_size, self.flops = batch_size, 0.0
        self._peak = peak(jax.devices()[0].device_kind, precision)
        self.restart()

    def restart(self) -> None:
        """Begin to count anew: leaves what happened since the last line out of the next one."""
        self._since, self._steps, self._waited = time.monotonic(), 0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what fetches the next batch."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    def stepped(self) -> None:
        """One more step is done."""
        self._steps += 1

    def figures(self) -> dict[str, float]:
        """steps/s and images/s; `waiting`, the share of the time in which the loop waited for a batch (the device may
        have been busy meanwhile, so this is the most that faster input could win); TFLOP/s of all devices together;
        `mfu`, the model FLOP utilisation; `peak-GB`, the most memory that a device, or where devices do not count
        the process, has used so far."""
        seconds = time.monotonic() - self._since
        rate = self._steps / seconds
        figures = {
            "steps/s": rate,
            "images/s": rate * self._batch_size,
            "waiting": self._waited / seconds,
            "TFLOP/s": rate * self.flops / 1e12,
        }
        if self._peak is not None:
            figures["mfu"] = rate * self.flops / (jax.device_count() * self._peak)
        return {**figures, "peak-GB": peak_memory() / 1e9}


def peak_memory() -> int:
    """Bytes: the most that one of this process's devices held at a time; on a CPU, the process's resident memory."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if held := [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]:
        return max(held)
    # Kilobytes, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
