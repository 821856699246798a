"""generate and transform, from the data to the log, with a model that is a function."""

import base64
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.estimate import estimate
from icl_runner.pictures import comparison
from icl_runner.pictures.corruptions import corrupt
from icl_runner.pictures.drawing import Drawing
from icl_runner.pictures.progressive import Decoded, Pair, flat_words
from icl_runner.prompts import CHAT_MAX_TOKENS
from icl_runner.tasks.generate import Generate
from icl_runner.tasks.transform import KINDS, Transform
from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import Pyramid, PyramidShape
from spae.text import parse
from spae.vocabulary import View, Vocabulary

# inspect-ai leaves streams of its own to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*MemoryObjectReceiveStream:pytest.PytestUnraisableExceptionWarning"
)

WORDS = ("black", "coal", "dusk", "grey", "mist", "pale", "snow", "white")
SHAPE = PyramidShape((1, 2, 4, 8))
LEVELS = 256 // len(WORDS)


class Levels:
    """A tokenizer whose words are levels of brightness."""

    shape = SHAPE
    image_size = 32
    views = {"meaning": View.raw(), "appearance": View.raw()}  # noqa: RUF012
    vocabulary = Vocabulary(WORDS, np.arange(8, dtype=np.int32), np.eye(8, dtype=np.float32), views, {})

    def square(self, image):
        return to_array(image, 32)

    def encode(self, images):
        return [self._encode(one) for one in images]

    def _encode(self, image):
        grey = Image.fromarray(to_array(image, 32)).convert("L")
        grids = [np.asarray(grey.resize(grid, Image.Resampling.BOX)) // LEVELS for grid in SHAPE.layers]
        return Pyramid(tuple(grids), SHAPE, self.vocabulary)

    def decode(self, pyramids, layers=None):
        grids = [(one.ids[-1] * LEVELS + LEVELS // 2).astype(np.uint8) for one in pyramids]
        shown = [Image.fromarray(grid).resize((32, 32), Image.Resampling.NEAREST) for grid in grids]
        return np.stack([np.asarray(one.convert("RGB")) for one in shown])

    def parse(self, text, layers=None):
        return parse(text, self.vocabulary, SHAPE, layers)


def digit_picture(digit, number):
    """4 x 4 cells: the digit's is white, and one of the last four is grey, for the number of the picture."""
    cells = np.full(16, 20, np.uint8)
    cells[digit], cells[12 + number] = 250, 120
    return np.repeat(np.kron(cells.reshape(4, 4), np.ones((7, 7), np.uint8))[..., None], 3, axis=-1)


def seen(images):
    return images.reshape(-1, 4, 8, 4, 8, 3).mean((2, 4, 5)).reshape(-1, 16)[:, :10].argmax(-1)


class OfCells:
    def __init__(self):
        self.setting = {"judged_among": 10}

    def prepare(self):
        pass

    def __call__(self, images, digit):
        return {"digit": seen(images) == int(digit)}


judge = OfCells()


def digits(each=4) -> ExampleSet:
    keys = {
        f"{digit}/{number}": digit_picture(digit, number) for digit in range(10) for number in range(each)
    }
    names = {str(digit): f"digit {digit}" for digit in range(10)}
    examples = [Example(key, key[0], captions=(f"digit\n {key[0]}", "a scribble")) for key in keys]
    return ExampleSet("digits", examples, names, keys.__getitem__, lambda: "made up")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """The perceptual distance without its package: a mean difference."""
    monkeypatch.setattr(comparison, "stlpips", lambda: lambda a, b: np.abs(a - b).mean((1, 2, 3)))


@pytest.fixture
def tokenizer():
    return Levels()


def png(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def images_of(tokenizer, examples) -> Images:
    """Images whose tokenizer is at hand, and whose words are kept nowhere."""
    images = Images(examples, "default")
    images.tokenizer = tokenizer
    images.pyramids = lambda keys: dict(
        zip(keys, tokenizer.encode([examples.image(key) for key in keys]), strict=True)
    )
    return images


def digit_cell(tokenizer, *, shots=3, layers=3, judge=judge, model="fake/m", **options):
    task = Generate(model=model, data="digits", shots=(shots,), **options)
    return task.cell(images_of(tokenizer, digits()), shots, layers, judge)


def test_every_class_is_asked_for_and_no_target_is_in_its_context(tokenizer):
    cell = digit_cell(tokenizer, rounds=2)
    examples = digits()
    texts = {" ".join(flat_words(tokenizer._encode(examples.image(k)), 3)): k for k in examples.labels}
    assert len(texts) == len(examples)  # so that pictures are told apart by their words
    assert Counter(one.condition for one in cell.drawings) == {f"an image of {d}": 2 for d in range(10)}
    assert len(set(cell.ids)) == 20
    contexts = set()
    for drawing in cell.drawings:
        assert Counter(pair.condition for pair in drawing.pairs) == {f"an image of {d}": 3 for d in range(10)}
        used = [texts[" ".join(pair.words)] for pair in drawing.pairs]
        assert len(set(used)) == 30
        assert texts[" ".join(drawing.target_words)] not in used
        assert all(texts[" ".join(p.words)][0] == p.condition[-1] for p in drawing.pairs)
        assert drawing.copied_words in [pair.words for pair in drawing.pairs]
        contexts.add(tuple(used))
    assert len(contexts) == 2
    assert used != sorted(used)  # the classes are mixed


def test_the_same_seed_gives_the_same_cell_and_another_one_another(tokenizer):
    first, again, other = (digit_cell(tokenizer, seed=seed) for seed in (1, 1, 2))
    assert [c.prompt.text for c in first.calls()] == [c.prompt.text for c in again.calls()]
    assert [c.prompt.text for c in first.calls()] != [c.prompt.text for c in other.calls()]


def test_sums_are_of_the_digit_wanted(tokenizer):
    cell = digit_cell(tokenizer, condition="sum", rounds=3)
    for drawing in cell.drawings:
        first, second = map(int, drawing.condition.removeprefix("an image of ").split("+"))
        assert first + second == int(drawing.label)
        assert min(first, second) > 0 or int(drawing.label) < 2
        assert seen(drawing.target[None]) == [int(drawing.label)]


def test_captions_as_conditions(tokenizer):
    cell = digit_cell(tokenizer, condition="caption", judge=None, shots=5, classes=7)
    assert len(cell.drawings) == 7
    assert all(len(drawing.pairs) == 5 for drawing in cell.drawings)
    assert all(d.condition.startswith("digit ") and "\n" not in d.condition for d in cell.drawings)
    assert {d.target_words for d in cell.drawings}.isdisjoint({p.words for p in cell.drawings[0].pairs})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 4}, "wanted 5 images of every class"),
        ({"shots": 0}, "at least 1 shot"),
        ({"classes": 11}, "at most 10 ways"),
        ({"condition": "colour"}, "wanted the condition"),
        ({"condition": "caption", "shots": 39, "classes": 2}, "39 captioned images"),
        ({"layers": 9}, "layers"),
        ({"layers": 3, "segments": (1, 4)}, "one for each of 3 layers"),
        (
            {"context_tokens": 600},
            r"wanted prompts of at most 600 tokens; 30 .* \d+ examples fit",
        ),
    ],
)
def test_what_cannot_be_is_refused(tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        digit_cell(tokenizer, **options)


def test_segments_layer_by_layer(tokenizer):
    cell = digit_cell(tokenizer, classes=1, layers=4, autoregressive=1, segments=(1, 2, 16, 64))
    keys = [call.key for call in cell.calls()]
    assert keys == [
        "layer 1, words 1 to 1",
        "layer 2, words 2 to 3",
        "layer 2, words 4 to 5",
        "layer 3, words 6 to 21",
        "layer 4, words 22 to 85",
    ]
    assert cell.setting["segment_words"] == "1 2 16 64"


def test_the_pictures_of_a_context_are_asked_together(tokenizer):
    # 1 + 1 AR segments, then 1 + 4 slices, each twice.
    cell = digit_cell(tokenizer, rounds=2, layers=4, autoregressive=2, samples=2, temperature=1.0)
    assert cell.sharing == (10, 2 * 7)
    shared = transform_cell(tokenizer, kind="words")
    assert shared.sharing[0] == len(shared.drawings) > 1


def test_choice_by_agreement_is_counted_and_refused_where_it_cannot_be(tokenizer):
    chosen = {"choose": "agreement", "samples": 3, "temperature": 1.0}
    with pytest.raises(InputError, match="wants a model that tells how likely"):
        digit_cell(tokenizer, layers=2, **chosen)
    with pytest.raises(InputError, match="several samples to choose by agreement"):
        Generate(model="spae-lm/default", data="digits", choose="agreement").decoding(4)
    cell = digit_cell(tokenizer, model="spae-lm/default", classes=2, layers=1, autoregressive=1, **chosen)
    # Of each of two pictures three samples; then its own condition and the only other one.
    assert [call.likelihoods for call in cell.calls()] == ([False] * 3 + [True] * 2) * 2
    assert {len(call.choices) for call in cell.calls() if call.likelihoods} == {3}
    assert cell.setting["choose"] == "agreement"
    # A sum is weighed against other digits than its own.
    cell = digit_cell(
        tokenizer, model="spae-lm/default", condition="sum", layers=1, autoregressive=1, **chosen
    )
    for drawing in cell.drawings:
        assert len(drawing.others()) == 9
        assert f"an image of {drawing.label}" not in drawing.others()
    with pytest.raises(InputError, match=r"shows something else than .*by agreement.*choose by likelihood"):
        digit_cell(tokenizer, model="spae-lm/default", classes=1, layers=1, autoregressive=1, **chosen)
    with pytest.raises(InputError, match="shows something else"):
        transform_cell(
            tokenizer, model="spae-lm/default", kind="words", context="published-leaking", **chosen
        )


def test_contrast_reads_every_other_condition_and_is_refused_where_it_cannot_be(tokenizer):
    with pytest.raises(
        InputError, match=r"--contrast wants .* got fake/m: take --samples K --choose agreement"
    ):
        digit_cell(tokenizer, contrast=1.0)
    plain = digit_cell(tokenizer, model="spae-lm/default", layers=2)
    cell = digit_cell(tokenizer, model="spae-lm/default", layers=2, contrast=0.5)
    assert cell.setting == {**plain.setting, "contrast": 0.5}
    for before, call in zip(plain.calls(), cell.calls(), strict=True):
        assert (call.prompt, before.against) == (before.prompt, ())
        own = call.prompt.query.split("\n")[0]
        conditions = {prompt.query.split("\n")[0] for prompt in call.against}
        assert len(call.against) == 9
        assert {own, *conditions} == {f"Input: an image of {digit}" for digit in range(10)}
    # A dry run counts all prompts that are read.
    [[alone], [beside]] = estimate([plain], "completions/m"), estimate([cell], "completions/m")
    assert (beside.calls, beside.read, beside.written) == (alone.calls, 10 * alone.read, alone.written)
    with pytest.raises(InputError, match=r"shows something else than .*by contrast.*choose by likelihood"):
        digit_cell(tokenizer, model="spae-lm/default", classes=1, layers=1, contrast=0.5)
    with pytest.raises(InputError, match="wanted a contrast from 0; got -1"):
        digit_cell(tokenizer, model="spae-lm/default", contrast=-1.0)


def test_a_run_by_contrast_asks_as_its_dry_run_says(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("icl_runner.pictures.asking.constraints.supports", lambda name: True)
    cells = [
        digit_cell(tokenizer, model="spae-lm/default", classes=3, layers=3, contrast=0.5),
        transform_cell(tokenizer, model="spae-lm/default", kind="words", layers=3, contrast=0.5),
    ]
    for cell in cells:
        asked = []

        def answer(messages, config, asked=asked):
            body = config.extra_body["spae"]
            against = tuple(
                body.get("against", ())
            )  # none where no other image has another word in this place
            asked.append((messages[-1].content, against, body.get("contrast", 0.5)))
            return " ".join(["black"] * body["words"])

        log = run(cell, answer, log_dir=str(tmp_path / cell.name))
        assert log.status == "success"
        # Of autoregressive layers the prompts hold what was written, here other words than the dry run's.
        first = [call for call in cell.calls() if call.key == "layer 1, words 1 to 1"]
        told = {(call.prompt.text, tuple(one.text for one in call.against), 0.5) for call in first}
        assert told <= set(asked)
        for prompt, against, _ in asked:
            assert prompt not in against
            assert len(set(against)) == len(against)
        assert any(against for _, against, _ in asked)


@pytest.mark.parametrize("options", [{"samples": 2}, {"temperature": -1.0}])
def test_samples_that_could_not_differ_are_refused(options):
    with pytest.raises(InputError, match="temperature above 0"):
        Generate(model="fake/m", data="digits", **options).decoding(4)


def test_the_targets_own_words_score_as_their_oracle(tokenizer):
    cell = digit_cell(tokenizer)
    drawing = cell.drawings[7]
    values, metadata = cell.score(drawing, Decoded(drawing.target_words, {"case": 1}, ()))
    for name in ("psnr", "ssim", "stlpips", "digit"):
        assert values[name] == values[f"{name}_oracle"]
    assert {key.partition("_")[2] for key in values} == {"", "oracle", "copy", "random"}
    assert values["digit"] == 1.0
    assert values["psnr"] > values["psnr_random"]
    assert metadata["condition"] == "an image of 7"
    assert metadata["words"] == metadata["target_words"] == " ".join(drawing.target_words)
    assert (metadata["layers"], metadata["repairs"], metadata["input_png"]) == (3, {"case": 1}, None)
    assert np.array_equal(png(metadata["target_png"]), drawing.target)


def run(cell, answer, **options):
    """One run of inspect's over the cell; `answer`: (messages, config) -> text."""
    from inspect_ai import eval as run_eval
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from icl_runner.pictures.asking import drawing_task

    def output(messages, tools, tool_choice, config):
        made = ModelOutput.from_content("mockllm/model", answer(messages, config))
        made.usage = ModelUsage()  # else the mock counts tokens, with a tokenizer from the network
        return made

    model = get_model("mockllm/model", custom_outputs=output)
    options = {"display": "none", "log_level": "error", "fail_on_error": False, **options}
    [log] = run_eval(drawing_task(cell, {"spae": {"task": cell.task}}), model=model, **options)
    return log


def from_context(messages, config):
    """A model that copies: the next words of the context's first picture with the query's condition."""
    text = messages[-1].content
    blocks = [block.strip().split("\nOutput:") for block in text.split("###\n")]
    condition, written = blocks[-1]
    known = next(words for given, words in blocks[:-1] if given == condition)
    return " ".join(known.split()[len(written.split()) :])


def test_a_run_end_to_end_with_a_model_that_copies(tokenizer, tmp_path):
    cell = digit_cell(tokenizer, layers=4, autoregressive=2, segment_words=16)
    log = run(cell, from_context, log_dir=str(tmp_path))
    assert log.status == "success"
    assert [sample.id for sample in log.samples] == cell.ids
    for sample, drawing in zip(log.samples, cell.drawings, strict=True):
        [score] = sample.scores.values()
        assert score.value["digit"] == 1.0
        assert score.metadata["repairs"] == {}
        right = [pair.words for pair in drawing.pairs if pair.condition == drawing.condition]
        assert tuple(score.metadata["words"].split()) == right[0]
    assert log.eval.metadata == {"spae": {"task": "generate"}}
    # 1 + 1 AR segments, then 1 + 4 slices, of ten samples.
    calls = [event for event in log.samples[0].events if event.event == "model"]
    assert len(calls) == 7


def test_calls_foresee_the_run(tokenizer, tmp_path):
    cell = digit_cell(tokenizer, classes=2, layers=4, autoregressive=2, samples=2, temperature=1.0)
    asked = []

    def answer(messages, config):
        assert config.stop_seqs is None  # some endpoints refuse them
        asked.append((messages[0].content, config.max_tokens - CHAT_MAX_TOKENS))
        return from_context(messages, config)

    run(cell, answer, log_dir=str(tmp_path))
    assert "exactly 1 English word," in asked[0][0]
    # Room to think, which chat models get beside, is nothing to foresee.
    foreseen = [(call.system, call.max_tokens) for call in cell.calls()]
    assert Counter(asked) == Counter(foreseen)
    assert len(asked) == 2 * 7 * 2


def test_a_call_that_fails_fails_its_sample_only_and_leaves_the_words(tokenizer, tmp_path):
    cell = digit_cell(tokenizer, classes=3, layers=3, autoregressive=3)
    broken = cell.drawings[1].condition

    def answer(messages, config):
        if messages[-1].content.count(f"Input: {broken}\n") > 3 and "exactly 16" in messages[0].content:
            raise OSError("cut off")
        return from_context(messages, config)

    log = run(cell, answer, log_dir=str(tmp_path))
    failed = [sample for sample in log.samples if sample.error]
    assert [sample.id for sample in failed] == [cell.ids[1]]
    assert "cut off" in failed[0].error.message
    kept = failed[0].store["decoded"]
    assert len(kept["words"]) == 21
    assert kept["repairs"]["missing"] == 16
    assert "cut off" in kept["failures"][0]
    assert all(sample.scores for sample in log.samples if not sample.error)


def test_answers_of_chat_models_are_repaired_and_counted(tokenizer, tmp_path):
    cell = digit_cell(tokenizer, classes=1, layers=2)
    log = run(cell, lambda messages, config: "Grey, mist!", log_dir=str(tmp_path))
    [score] = log.samples[0].scores.values()
    assert len(score.metadata["words"].split()) == 5
    assert score.metadata["repairs"] == {"case": 2, "missing": 2, "punctuation": 4, "surplus": 1}


def transform_cell(tokenizer, *, shots=5, layers=3, **options):
    given = {"model": "fake/m", "kind": "brightness", "count": 6, "shots": (shots,)} | options
    task = Transform(data="digits", **given)
    return task.cell(images_of(tokenizer, digits()), shots, layers)


def keys_by_words(tokenizer):
    examples = digits()
    return {flat_words(tokenizer._encode(examples.image(key)), 3): key for key in examples.labels}


def test_a_transform_goes_from_a_corrupted_image_to_the_clean_one(tokenizer):
    cell = transform_cell(tokenizer, kind="translation", first=0.6, last=0.1)
    keys, examples = keys_by_words(tokenizer), digits()
    for drawing in cell.drawings:
        clean = to_array(examples.image(keys[drawing.target_words]), 32)
        assert np.array_equal(drawing.target, clean)
        assert np.array_equal(drawing.input, corrupt(clean, "translation", 0.1))
        assert drawing.condition == drawing.input_words
        assert drawing.input_words == flat_words(tokenizer._encode(drawing.input), 3)
        for pair, strength in zip(drawing.pairs, (0.6, 0.5, 0.4, 0.3, 0.2), strict=True):
            shown = corrupt(to_array(examples.image(keys[pair.words]), 32), "translation", strength)
            assert pair.condition == flat_words(tokenizer._encode(shown), 3)


def test_leak_free_contexts_hold_no_query_of_any_round(tokenizer):
    cell = transform_cell(tokenizer, rounds=3)
    queries = [drawing.target_words for drawing in cell.drawings]
    contexts = {drawing.pairs for drawing in cell.drawings}
    shown = [pair.words for pairs in contexts for pair in pairs]
    assert len(set(queries)) == len(queries) == 18
    assert len(contexts) == 3
    assert len(set(shown)) == len(shown) == 15
    assert set(shown).isdisjoint(queries)
    assert cell.setting["context"] == "leak-free"


def test_what_is_held_is_in_the_context_or_the_input():
    blank = np.zeros((1, 1, 3), np.uint8)
    drawing = Drawing(
        id="a",
        shown="words",
        condition="",
        pairs=(Pair(("cat", "dog"), ("sun", "sky")), Pair("new", ("sun", "sky"))),
        target=blank,
        target_words=("sky", "cat", "new", "here", "sea"),
        copied_words=(),
        input=blank,
        input_words=("one", "two", "three", "four", "here"),
    )
    # "cat" is in a condition, "new" and "sea" nowhere, "here" elsewhere in the input.
    assert drawing.held() == ("sky", "cat", "three", "here", "here")


def test_the_published_context_leaks_and_says_so(tokenizer):
    cell = transform_cell(tokenizer, context="published-leaking", kind="words", shots=10)
    for drawing in cell.drawings:
        assert [pair.words for pair in drawing.pairs] == [drawing.target_words] * 10
        replaced = [
            sum(a != b for a, b in zip(pair.condition, drawing.target_words, strict=True))
            for pair in drawing.pairs
        ]
        assert replaced == [round(share / 100 * 21) for share in range(50, 20, -3)]
        assert "published-leaking" in drawing.shown
    assert cell.setting["context"] == "published-leaking"
    assert "published-leaking" in cell.name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_a_cell_and_scores(tokenizer, kind):
    cell = transform_cell(tokenizer, kind=kind, count=1, shots=1)
    [drawing] = cell.drawings
    values, metadata = cell.score(drawing, Decoded(drawing.target_words, {}, ()))
    suffixes = ("", "_oracle", "_copy", "_random", "_nothing", "_nothing_words", "_held")
    names = {f"{name}{suffix}" for name in ("psnr", "ssim", "stlpips", "words") for suffix in suffixes}
    assert set(values) == names - {"words_nothing"}  # an image, not words
    assert values["psnr"] == values["psnr_oracle"]
    assert values["words"] == values["words_oracle"] == 1 > values["words_random"]
    kept = [a == b for a, b in zip(drawing.input_words, drawing.target_words, strict=True)]
    assert values["words_nothing_words"] == pytest.approx(np.mean(kept))
    assert values["words_held"] >= values["words_nothing_words"]
    assert np.array_equal(png(metadata["input_png"]), drawing.input)
    assert kind in metadata["condition"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sharpen"}, "wanted one of brightness"),
        ({"context": "leaking"}, "leak-free or published-leaking"),
        ({"count": 0}, "at least 1 query"),
        ({"shots": 30, "count": 11}, "has 40 images"),
        ({"shots": 0}, "at least one example"),
        ({"first": 1.5}, "strength from 0 to 1"),
        ({"context_tokens": 300}, r"at most 300 tokens; 5 .* \d examples fit"),
    ],
)
def test_what_cannot_be_transformed_is_refused(tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        transform_cell(tokenizer, **options)


def test_a_transform_end_to_end_with_a_model_that_leaves_the_input_as_it_is(tokenizer, tmp_path):
    def same(messages, config):
        condition, written = messages[-1].content.rpartition("Input:")[2].split("\nOutput:")
        return " ".join(condition.split()[len(written.split()) :])

    cell = transform_cell(tokenizer, layers=4, autoregressive=2)
    log = run(cell, same, log_dir=str(tmp_path))
    assert log.status == "success"
    drawings = {drawing.id: drawing for drawing in cell.drawings}
    assert {sample.id for sample in log.samples} == set(drawings)
    for sample in log.samples:
        [score] = sample.scores.values()
        assert tuple(score.metadata["words"].split()) == drawings[sample.id].input_words
        assert score.value["psnr"] == score.value["psnr_nothing_words"]
        # Whoever reads the log sees what was there and what was wanted; the model reads words only.
        assert [part.type for part in sample.input[0].content] == ["text", *["text", "image"] * 2]
        asked = [event.input for event in sample.events if event.event == "model"]
        assert all(isinstance(message.content, str) for messages in asked for message in messages)


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        (Generate(model="fake/m", data="digits", shots=(1, 3)), (1, 3)),
        (Generate(model="fake/m", data="digits", condition="caption", shots=(2, 9), classes=5), (2, 9)),
        (Transform(model="fake/m", data="digits", kind="words", shots=(1, 4), count=3), (1, 4)),
    ],
)
def test_every_number_of_shots_has_the_same_queries(tokenizer, task, counts):
    few, many = (task.cell(images_of(tokenizer, digits()), count, 3) for count in counts)
    assert [one.id for one in few.drawings] == [one.id for one in many.drawings]
    for one, other in zip(few.drawings, many.drawings, strict=True):
        np.testing.assert_array_equal(one.target, other.target)
        assert (len(one.pairs), len(other.pairs)) == tuple(
            count * 10 if isinstance(task, Generate) and task.condition == "class" else count
            for count in counts
        )
