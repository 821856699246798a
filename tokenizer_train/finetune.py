"""`spae-train finetune IMAGES`: a run that goes on from a bundle, on other images."""

from spae.architecture import AutoencoderConfig
from spae.bundle import read
from spae.errors import BundleError
from spae.sources.clips import trained_sampling
from tokenizer_train.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)


def finetune_config(images: str, bundle: str = "default") -> Config:
    """A short run that begins with a bundle's weights; minutes on two CPU cores.

    What stays: the words and their table, and how the meaning layers choose theirs, which is frozen (`spae.pursuit`)
    or, with a head, gets no gradient here. What is trained: encoder, decoder and the map of what words look like, by
    squared error; with `run.trains="decoder"` the decoder alone, so that the words of every image stay as they are.
    That is the default where a head reads the encoder itself (trunk "none"), whose words would go where the encoder
    goes. Clips are read as the bundle was trained to read them.

    Args:
        images: path or glob that `spae.sources.open_source` understands; a tenth of them, 64 at most, is held out.
        bundle: a shipped bundle's name, or a path.

    Raises:
        InputError: the bundle is of a kind that this does not train: a learned codebook, a masked language model.
        BundleError: no bundle is there, or it is damaged.
    """
    info, _ = read(bundle)
    try:
        tokenizer = AutoencoderConfig.from_json(info["config"])
    except (KeyError, TypeError) as error:
        raise BundleError(f"the bundle {bundle} lacks or has one field too many: {error}") from error
    # Where a CLIP lies the bundle does not know: --guidance says it, or there is nothing of this name.
    guidance = "clip:CLIP_FOLDER" if tokenizer.trunk == "clip" else "conse"
    rides = tokenizer.meaning_layers > 0 and tokenizer.meaning == "head" and tokenizer.trunk == "none"
    sampling = trained_sampling(info, tokenizer.frames)
    return Config(
        tokenizer=tokenizer,
        vocabulary=VocabularyConfig(path=bundle),
        data=DataConfig(
            train=images,
            validation=None,
            batch_size=16,
            threads=2,
            buffer=64,
            flip=False,
            stride=sampling.stride,
            fps=sampling.fps,
        ),
        loss=LossConfig(
            adversarial=0.0,
            lecam=0.0,
            perceptual=0.0,
            semantic=0.0,
            semantic_layers=0,
            prefix_dropout=0.0 if tokenizer.cross_attention else 0.2,
        ),
        optimizer=OptimizerConfig(
            steps=1_000,
            learning_rate=5e-4,
            betas=(0.9, 0.99),
            warmup_steps=50,
            decay="cosine",
            ema=0.99,  # so short a run needs a short memory of the weights
            clip_norm=1.0,
        ),
        run=RunConfig(
            output="build/finetune",
            initial=bundle,
            trains="decoder" if rides else "all",
            evaluate_every=250,
            checkpoint_every=250,
        ),
        guidance=guidance,
    )
