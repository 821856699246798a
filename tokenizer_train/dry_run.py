"""`spae-train CONFIG --dry-run`: what a run would need, from shapes alone.

The step is compiled as it would be in training, for as many devices, but it is not run, and what the config names need
not be there: images, vocabulary, weights of frozen networks. What is missing of them, or does not fit, is told.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spae.errors import InputError
from spae.frozen_lm.masked_lm import BertSizes, MaskedLM, read_masked_lm
from spae.weights.state_dict import abstract
from tokenizer_train.config import Config, VocabularyConfig
from tokenizer_train.connector import shapes as connector_shapes
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.flops import DEVICES, PEAKS, exact_flops, measured_peak, step_flops
from tokenizer_train.guidance import looks_at_images
from tokenizer_train.missing import missing
from tokenizer_train.networks import language_model
from tokenizer_train.networks.perceptual import LogitDistance
from tokenizer_train.networks.resnet import ResNet
from tokenizer_train.processes.mesh import BATCH_AXES, check_batch_size, make_mesh, replicated, shardings
from tokenizer_train.state import build, perceptual_network
from tokenizer_train.step import make_step

CONSE_WIDTH = 384  # of all-MiniLM-L6-v2
CLIP_WIDTH = 768  # of ViT-L/14, the paper's; narrower ones cost a little less
ROBERTA_BASE = BertSizes(
    width=768, inner=3072, layers=12, heads=12, positions=514, segments=1, first=2, epsilon=1e-5
)
ROBERTA_WORDS = 50_265
CPU = "cpu"
UTILISATION = 0.4  # of the peak, where the caller says nothing: what well-fed convolutions reach


class ShapedVocabulary:
    """What `state.build` asks of a vocabulary, without one: zeros that take no memory."""

    def __init__(self, words: int, widths: tuple[int, int]) -> None:
        self._words, self._widths = words, dict(zip(("appearance", "meaning"), widths, strict=True))
        self.token_ids = np.arange(words, dtype=np.int32)

    def __len__(self) -> int:
        return self._words

    def codebook(self, name: str) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (self._words, self._widths[name]))


def estimate(
    config: Config | ConnectorExperiment, devices: int, device: str, utilisation: float = UTILISATION
) -> dict[str, Any]:
    """Parameters, memory, operations and time of a run, as JSON.

    Args:
        config: the experiment.
        devices: how many; JAX must have been told to have at least as many (`cli` does).
        device: a key of `flops.DEVICES`, whose peak at `run.precision` is taken; or "cpu", this machine's processor,
            whose peak is measured by a product of two matrices.
        utilisation: share of that peak which the run is taken to reach, in (0, 1].

    Returns:
        parameters: numbers of scalars, of each trained part and of the frozen ones; memory: bytes on each device,
        as XLA's compiler for CPUs plans it; flops: of one step, over all devices; exact_flops: those of them in full
        float32, which have a peak of their own; images_per_second, hours and device_hours: both kinds over their
        peaks, the devices and the utilisation, with nothing added for waiting for data; missing: see `missing.missing`.

    Raises:
        InputError: an unknown device, too few of them, or a shape that neither the config nor a file tells.
    """
    _check(devices, device, utilisation)
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    check_batch_size(config.data.batch_size, mesh)
    if isinstance(config, ConnectorExperiment):
        parameters, step, arguments, constants = _shaped_connector_step(config, mesh)
        precision, not_there = "float32", missing(config)
    else:
        parameters, step, arguments, constants = _shaped_step(config, mesh)
        precision, not_there = config.run.precision, missing(config, arguments[0].params)
    traced = step.trace(*arguments, constants=constants)
    lowered = traced.lower()
    flops, exact = step_flops(traced, lowered), exact_flops(traced)
    name, peaks = _peaks(device)
    seconds = (flops - exact) / peaks[precision] + exact / peaks["highest"]
    seconds /= devices * utilisation
    hours = config.optimizer.steps * seconds / 3600
    return {
        "parameters": parameters,
        "memory": _memory(lowered),
        "flops": flops,
        "exact_flops": exact,
        "batch_size": config.data.batch_size,
        "steps": config.optimizer.steps,
        "devices": devices,
        "device": name,
        "precision": precision,
        "utilisation": utilisation,
        "images_per_second": config.data.batch_size / seconds,
        "hours": hours,
        "device_hours": hours * devices,
        "missing": not_there,
    }


def _check(devices: int, device: str, utilisation: float) -> None:
    if device not in (*DEVICES, CPU):
        raise InputError(f"--device must be one of {', '.join((*DEVICES, CPU))}, got {device!r}")
    if not 0 < utilisation <= 1:
        raise InputError(f"--utilisation must be above 0 and at most 1, got {utilisation}")
    if not 1 <= devices <= jax.device_count():
        raise InputError(f"--devices must be 1 .. {jax.device_count()} here, got {devices}")
    if device == CPU and devices > 1:
        raise InputError(
            f"--device cpu is this machine, of which there is one: leave out --devices {devices}"
        )


def _shaped_connector_step(
    config: ConnectorExperiment, mesh: Mesh
) -> tuple[dict[str, Any], Any, tuple[Any, Any], Any]:
    """The same of a connector's."""
    parameters, step, (state, frozen), shapes = connector_shapes.shaped_step(config, mesh)
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()
    }
    state = _placed(state, shardings(state, mesh))
    return parameters, step, (state, batch), _placed(_shapes(frozen), replicated(mesh))


def _shaped_step(config: Config, mesh: Mesh) -> tuple[dict[str, Any], Any, tuple[Any, Any], Any]:
    """Numbers of parameters, the jitted step, and the shapes of its arguments and its constants."""
    vocabulary: Any = _vocabulary(config.vocabulary)
    width = _feature_width(config)
    modules, fresh = build(
        config,
        vocabulary,
        np.broadcast_to(np.float32(0), (len(vocabulary), width)),
        np.zeros(len(vocabulary), np.float32),
        _perceptual(config),
        _language_model(config, vocabulary),
    )
    state = jax.eval_shape(fresh, jax.random.key(0))
    constants = _shapes(modules.constants)
    parameters = {
        **{name: _count(part) for name, part in state.params.items()},
        "discriminator": _count(state.discriminator),
        "frozen": {
            field.name: _count(getattr(constants, field.name)) for field in dataclasses.fields(constants)
        },
    }
    state = _placed(state, shardings(state, mesh))
    constants = _placed(constants, replicated(mesh))
    pursuit = config.tokenizer.meaning == "pursuit"
    seen = config.tokenizer.shape.tokens(config.tokenizer.meaning_layers) if pursuit else width
    step: Any = make_step(config, dataclasses.replace(modules, constants=constants), mesh).func
    return parameters, step, (state, _batch(config, seen, mesh)), constants


def _memory(lowered: jax.stages.Lowered) -> dict[str, int]:
    # XLA's compiler for CPUs, unlike others, would undo `run.rematerialize`: one product computed twice is one to it.
    memory: Any = lowered.compile({"xla_disable_hlo_passes": "cse_barrier_expander"}).memory_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "returned": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }


def _peaks(device: str) -> tuple[str, dict[str, float]]:
    """What a device is called, and its FLOP/s by precision."""
    if device != CPU:
        return DEVICES[device], PEAKS[DEVICES[device]]
    speed = measured_peak()
    name = f"this machine's processor, {_amount(speed)}FLOP/s by a product of two matrices"
    return name, dict.fromkeys(("bfloat16", "float32", "highest"), speed)


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    parameters, memory = result["parameters"], result["memory"]
    parts = ", ".join(f"{name} {_amount(size)}B" for name, size in memory.items())
    exact = "the frozen language model" if "connector" in parameters else "the search among the words"
    time = f"at least {_duration(result['hours'])} for {result['steps']:,} steps"
    if result["devices"] > 1:
        time += f": {result['device_hours']:,.2f} device-hours"
    lines = {
        "trained": _amounts({name: count for name, count in parameters.items() if name != "frozen"}),
        "frozen": _amounts(parameters["frozen"]),
        "memory": f"{_amount(sum(memory.values()))}B a device: {parts} (as XLA plans it for CPUs, which compute in "
        "float32; other compilers take less or more temporary memory)",
        "operations": f"{_amount(result['flops'])}FLOP a step of {result['batch_size']:,} images, "
        f"{_amount(result['exact_flops'])}FLOP of them in full float32 ({exact})",
        "speed": f"at most {result['images_per_second']:,.0f} images/s on {result['devices']} x {result['device']} "
        f"({result['precision']}) at {result['utilisation']:.0%} of their peak; "
        "small networks reach far less: --utilisation; other devices: --device",
        "time": time,
        "missing": "\n            ".join(result["missing"]) or "nothing that the config names",
    }
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


def _duration(hours: float) -> str:
    """Hours, minutes below one hour, or seconds below one minute."""
    if hours >= 1:
        return f"{hours:,.2f} hours"
    return f"{hours * 60:.1f} minutes" if hours * 60 >= 1 else f"{hours * 3600:.1f} seconds"


def _vocabulary(config: VocabularyConfig) -> Any:
    if config.codes is not None:
        return ShapedVocabulary(config.codes, (config.width, config.width))
    if config.is_there():
        return config.load()
    if config.words is None or config.widths is None:
        raise InputError(
            f"there is no vocabulary at {config.path!r} to take the shapes from: build it, or give "
            "vocabulary.words and vocabulary.widths"
        )
    return ShapedVocabulary(config.words, config.widths)


def _feature_width(config: Config) -> int:
    """Of the words' vectors; with pursuit there are none."""
    if not looks_at_images(config) or config.tokenizer.meaning == "pursuit":
        return 0
    return CONSE_WIDTH if config.guidance == "conse" else CLIP_WIDTH


def _perceptual(config: Config) -> nnx.Module | None:
    if config.loss.perceptual > 0 and config.loss.perceptual_network == "resnet50-logits":
        return abstract(lambda rngs: LogitDistance(ResNet(rngs=rngs)))
    return perceptual_network(config)


def _language_model(config: Config, vocabulary: Any) -> MaskedLM | None:
    name = config.language_model
    dtype = jnp.bfloat16 if config.run.precision == "bfloat16" else jnp.float32
    if name is None or (Path(name).exists() and not isinstance(vocabulary, ShapedVocabulary)):
        return language_model.load(config, vocabulary)
    if Path(name).exists():
        return read_masked_lm(name, dtype)  # there are no words to compare with its table
    if Path(name).name != "roberta-base":
        raise InputError(
            f"language_model {name!r} is no folder; without one only the shapes of roberta-base are known"
        )
    return abstract(
        lambda rngs: MaskedLM(ROBERTA_WORDS, ROBERTA_BASE, ROBERTA_WORDS - 1, dtype=dtype, rngs=rngs)
    )


def _batch(config: Config, width: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    size, frames = config.tokenizer.image_size, config.tokenizer.frames
    clip = (frames,) if frames > 1 else ()
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    shapes = {"images": ((*clip, size, size, 3), jnp.uint8), "features": ((width,), jnp.float32)}
    return {
        name: jax.ShapeDtypeStruct((config.data.batch_size, *shape), dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _placed(tree: Any, sharding: Any) -> Any:
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, sharding)


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _amounts(parts: dict[str, int]) -> str:
    return (
        ", ".join(f"{name} {_amount(count).strip()}" for name, count in parts.items() if count) or "nothing"
    )


def _amount(number: float) -> str:
    """Three digits and a metric prefix, such as "59.4 M"."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while abs(number) >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}"
