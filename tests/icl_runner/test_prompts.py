"""The prompts, word for word: a change of any of them changes results, and has to change this file too."""

import pytest

from icl_runner import prompts

CLASSIFY = """\
Each input is the words of an image. Each output is one of: beagle, fishing boat.
###
Input: dog pup floor grass nose
Output: beagle
###
Input: boat water sky ships mast
Output: fishing boat
###
Input: dog sofa hound ear brown
Output:"""

EXAMPLES = [("dog pup floor grass nose", "beagle"), ("boat water sky ships mast", "fishing boat")]
QUERY = "dog sofa hound ear brown"


def test_classify():
    prompt = prompts.classify(["beagle", "fishing boat"], EXAMPLES, QUERY)
    assert prompt.text == CLASSIFY
    assert prompt.query == "Input: dog sofa hound ear brown\nOutput:"
    assert prompt.stop == ("\n", "###")


def test_classify_without_induction_has_the_same_blocks_only():
    prompt = prompts.classify(["beagle", "fishing boat"], EXAMPLES, QUERY, induction=False)
    assert prompt.text == CLASSIFY.partition("###\n")[2]


def test_repeats_are_further_copies_of_all_examples():
    once = prompts.classify(["beagle", "fishing boat"], EXAMPLES, QUERY)
    thrice = prompts.classify(["beagle", "fishing boat"], EXAMPLES, QUERY, repeats=2)
    preamble, _, examples = once.context.partition("###\n")
    assert thrice.context == preamble + "###\n" + 3 * examples
    assert thrice.query == once.query


def test_caption():
    prompt = prompts.caption([("dog park", "A dog in a park.")], "boat sea")
    assert prompt.text == (
        "Each image is given by its words. Each caption says in one sentence what the image shows.\n###\n"
        "Image: dog park\nCaption: A dog in a park.\n###\n"
        "Image: boat sea\nCaption:"
    )


def test_vqa():
    prompt = prompts.vqa([("circle red", "what colour is it?", "red")], "square blue", "what shape is it?")
    assert prompt.text == (
        "Each image is given by its words. Each answer to the question about it is short.\n###\n"
        "Image: circle red\nQuestion: what colour is it?\nAnswer: red\n###\n"
        "Image: square blue\nQuestion: what shape is it?\nAnswer:"
    )


def test_interpret():
    assert prompts.interpret("boat sea").text == (
        "Each image is given by its words. After them stands, in one short phrase, what the image shows.\n###\n"
        "Image: boat sea\nThe image shows a"
    )


def test_generate_carries_on_behind_what_is_written():
    examples = [("an image of 1", "stick line"), ("an image of 7", "hook line")]
    prompt = prompts.generate(examples, "an image of 1+7")
    assert prompt.text == (
        "Input: an image of 1\nOutput: stick line\n###\n"
        "Input: an image of 7\nOutput: hook line\n###\n"
        "Input: an image of 1+7\nOutput:"
    )
    further = prompts.generate(examples, "an image of 1+7", written="ring ring")
    assert further.text == prompt.text + " ring ring"
    assert further.context == prompt.context


def test_transform_carries_on_behind_what_is_written():
    prompt = prompts.transform([("dark dog", "bright dog")], "dark boat")
    assert prompt.text == "Input: dark dog\nOutput: bright dog\n###\nInput: dark boat\nOutput:"
    assert (
        prompts.transform([("dark dog", "bright dog")], "dark boat", "bright").text == prompt.text + " bright"
    )


def test_a_chat_model_is_told_the_names():
    assert prompts.chat_choice(["beagle", "boat"]).endswith("exactly one of: beagle, boat.")


@pytest.mark.parametrize("other", ["boat water", "house"])
def test_the_context_does_not_depend_on_the_query(other):
    assert (
        prompts.classify(["a", "b"], EXAMPLES, other).context
        == prompts.classify(["a", "b"], EXAMPLES, QUERY).context
    )
    assert prompts.vqa([], other, "why?").context == prompts.vqa([], QUERY, "what?").context
    assert prompts.caption(EXAMPLES, other).context == prompts.caption(EXAMPLES, QUERY).context
