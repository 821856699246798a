"""The questions of a task with their true answers, as conversations that a connector can be trained on."""

import itertools
from pathlib import Path

from PIL import Image

from icl_runner.cells import shuffled
from icl_runner.texts.task import QuestionTask
from spae.connector_config import IMAGE
from spae.conversations import Conversation, Turn, write_conversations
from spae.errors import InputError


def write_asked(*tasks: QuestionTask, output: Path) -> int:
    """Writes `output`, a file of conversations, and its images as PNG into the folder of that name without ending.

    A conversation is what a task asks about an image (the end of its prompt: no examples, `<image>` in place of the
    words) and the true answer. Of each task `count` examples are taken, of the images that come
    last in the order of its seed: a run takes the first, whose images are others as long as there are enough for both.

    Returns:
        How many conversations there are.

    Raises:
        InputError: a task's data has no example that it can ask about, an image cannot be read, or a file cannot be
            written.
    """
    folder = output.with_suffix("")
    written: dict[tuple[int, str], str] = {}
    conversations: list[Conversation] = []
    numbers = itertools.count()
    for which, task in enumerate(tasks):
        examples = task.examples()
        usable = [one for one in examples.examples if task.is_usable(one, examples.class_names)]
        if not usable:
            raise InputError(f"{task.name}: wanted {task.wanted}, {examples.name} has none")
        order = shuffled(usable, task.seed, lambda one: one.key)
        # A run takes the first: images of which it would ask last come first here, with all their questions.
        first = {one.image_key: -place for place, one in reversed(list(enumerate(order)))}
        for example in sorted(order, key=lambda one: first[one.image_key])[: task.count]:
            image = (which, example.image_key)
            if image not in written:
                written[image] = f"{folder.name}/{next(numbers):06d}.png"
                _write(Image.fromarray(examples.image(example)), output.parent / written[image])
            asked = task.prompt([], example, IMAGE).query
            answer, _ = task.truth(example, examples.class_names)
            turns = (Turn("human", asked), Turn("gpt", " ".join(answer.split())))
            conversations.append(Conversation(f"{task.name}/{which}/{example.key}", written[image], turns))
    write_conversations(output, conversations)
    return len(conversations)


def _write(image: Image.Image, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror or error}") from error
