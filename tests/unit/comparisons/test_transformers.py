"""A language model in this process, through transformers: its answers, its odds, and folders that will not do."""

import math

import pytest
import torch
from helpers.tiny_llm import TEMPLATE, save_llm
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationMixin, PreTrainedTokenizerBase

from pcclip.comparisons.llm import Choice, Odds, Question, Reply, backend_identity, start_backend
from pcclip.comparisons.llm.transformers_model import NucleusSampler
from pcclip.comparisons.prompts import Prompt
from pcclip.config import Generate
from pcclip.errors import PcclipError

CHOICES = [Choice(f"c{k}", f"A fox {k} is much", ("larger",), ("smaller",), f"Is fox {k} larger?") for k in range(6)]


@pytest.fixture(scope="module")
def prompt():
    system = [{"role": "system", "content": "You compare two photos : read their captions"}]
    return Prompt("short", "0", system, "First image {first} second {second}")


def answers(config, prompt, questions) -> dict[str, Reply]:
    return {q.key: reply for q, reply in start_backend(config, prompt).answers(questions)}


def odds_of(config, prompt, choices=CHOICES) -> dict[str, Odds]:
    return {c.key: odds for c, odds in start_backend(config, prompt).choose(choices)}


WORDS = (
    "A red disc blue bar green The first image shows , while the second . large small larger smaller bigger is "
    "much fox bus than You compare two photos read their captions and system user assistant"
).split()
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("tiny_llm"), WORDS)


def here(folder, **settings) -> Generate:
    return Generate(**{"backend": "transformers", "llm": str(folder), "max_tokens": 24, "in_flight": 4, **settings})


MIXED = [Question(f"m{k}", "A " + "red " * (5 * k % 7) + "disc.", "A blue bar.") for k in range(6)]


def test_a_row_does_not_depend_on_its_batch_mates(tiny_llm, prompt):
    together = answers(here(tiny_llm), prompt, MIXED)
    assert together == answers(here(tiny_llm, in_flight=1), prompt, MIXED[::-1])
    assert len({reply.text for reply in together.values()}) == len(MIXED)
    assert {reply.finish_reason for reply in together.values()} == {"stop", "length"}
    for reply in together.values():
        assert (len(reply.text.split()) == 24) == (reply.finish_reason == "length")
        assert "[end]" not in reply.text


def test_the_seed_is_the_questions(tiny_llm, prompt):
    same = [Question(key, "A red disc.", "A blue bar.") for key in ("one", "two")]
    found = answers(here(tiny_llm), prompt, same)
    assert found["one"] != found["two"]
    assert len(set(answers(here(tiny_llm, temperature=0.0), prompt, same).values())) == 1


def test_left_padding_changes_nothing(tiny_llm, prompt):
    """Greedy answers of a padded batch are those of a plain loop without padding, cache or generate()."""
    found = answers(here(tiny_llm, temperature=0.0), prompt, MIXED)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llm), AutoModelForCausalLM.from_pretrained(tiny_llm).eval()
    for question in MIXED:
        text = tokenizer.apply_chat_template(
            prompt.messages(question.first, question.second), add_generation_prompt=True, tokenize=False
        )
        ids, new = tokenizer(text, return_tensors="pt").input_ids, []
        for _ in range(24):
            new.append(int(model(torch.cat([ids, torch.tensor([new], dtype=torch.long)], 1)).logits[0, -1].argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
        assert found[question.key].text == tokenizer.decode(new, skip_special_tokens=True)


def test_sampling_follows_the_nucleus():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5]).repeat(4000, 1)
    taken = NucleusSampler(list(range(4000)), Generate(temperature=0.5, top_p=0.9))(None, logits).argmax(-1)
    probabilities = (logits[0] / 0.5).softmax(-1)  # 0.63, 0.01, 0.09, 0.00, 0.23: the nucleus is 0, 4, 2
    nucleus = torch.zeros(5)
    nucleus[[0, 4, 2]] = probabilities[[0, 4, 2]]
    torch.testing.assert_close(taken.bincount(minlength=5) / 4000, nucleus / nucleus.sum(), atol=0.03, rtol=0)


def test_choices_are_exact(tiny_llm, prompt):
    texts = ["A " + "red " * k + "fox is much" for k in range(6)]
    choices = [Choice(text, text, ("larger", "bigger"), ("smaller",), "") for text in texts]
    found = odds_of(here(tiny_llm), prompt, choices)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llm), AutoModelForCausalLM.from_pretrained(tiny_llm).eval()
    larger, bigger, smaller = tokenizer.convert_tokens_to_ids(["larger", "bigger", "smaller"])
    for choice in choices:
        with torch.no_grad():
            p = model(**tokenizer(choice.text, return_tensors="pt")).logits[0, -1].softmax(-1)
        expected = math.log(p[larger] + p[bigger]) - math.log(p[smaller])
        assert found[choice.key] == Odds(pytest.approx(expected, abs=1e-4), "probabilities")


def test_choices_that_begin_alike(tiny_llm, prompt):
    alike = Choice("a", "A fox is much", ("huge", "larger"), ("tiny", "larger"), "")  # 'huge' and 'tiny' are [unk]
    assert odds_of(here(tiny_llm), prompt, [alike])["a"].reason.startswith("error: ")


def copied(folder, to, **changes):
    """A copy of the folder with other contents of some files; None leaves a file out."""
    to.mkdir()
    for path in folder.iterdir():
        content = changes.get(path.name, path.read_bytes())
        if content is not None:
            (to / path.name).write_bytes(content)
    return to


def test_a_template_without_a_system_role(tiny_llm, prompt, tmp_path, monkeypatch):
    """The system text begins the first user's message."""
    folder = copied(tiny_llm, tmp_path / "llm", **{"chat_template.jinja": NO_SYSTEM.encode()})
    seen, apply = [], PreTrainedTokenizerBase.apply_chat_template
    monkeypatch.setattr(
        PreTrainedTokenizerBase,
        "apply_chat_template",
        lambda self, messages, **options: seen.append(messages) or apply(self, messages, **options),
    )
    answers(here(folder), prompt, MIXED[1:2])
    system, first, *rest = prompt.messages(MIXED[1].first, MIXED[1].second)
    assert seen[-1] == [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def test_too_many_rows_for_the_memory(tiny_llm, prompt, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GenerationMixin, "generate", full)
    backend = start_backend(here(tiny_llm), prompt)
    for results in (backend.answers(MIXED), backend.choose(CHOICES)):
        with pytest.raises(PcclipError, match=r"generate\.in_flight = 4: too many rows"):
            next(results)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chat_template.jinja": None}, "its tokenizer's chat template refuses the prompt"),
        ({"chat_template.jinja": b"{{ raise_exception('never') }}"}, r"refuses the prompt short \(never\)"),
        ({"model.safetensors": None}, r"cannot be loaded .*`hf download"),
        ({"model.safetensors": b"cut"}, r"model.safetensors is empty, or text"),
        ({"config.json": b"{}"}, "cannot be loaded"),
    ],
)
def test_a_folder_that_will_not_do(changes, says, tiny_llm, prompt, tmp_path):
    folder = copied(tiny_llm, tmp_path / "llm", **changes)
    with pytest.raises(PcclipError, match=says) as error:
        start_backend(here(folder), prompt)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(tiny_llm, prompt, tmp_path):
    from safetensors.torch import load_file

    folder = copied(tiny_llm, tmp_path / "llm", **{"model.safetensors": None})
    torch.save(load_file(tiny_llm / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(PcclipError, match=r"cannot be loaded .* give a local folder with safetensors"):
        start_backend(here(folder), prompt)


def test_weights_that_are_not_here(prompt):
    with pytest.raises(PcclipError, match=r"no/such-model: cannot be loaded .*`hf download no/such-model`") as error:
        start_backend(here("no/such-model"), prompt)
    assert "\n" not in str(error.value)
    with pytest.raises(PcclipError, match=r"/no/such: no such folder"):
        backend_identity(here("/no/such"))


def test_the_identity_of_weights(tiny_llm, tmp_path):
    one = backend_identity(here(tiny_llm))
    assert one == backend_identity(here(copied(tiny_llm, tmp_path / "same")))
    assert one != backend_identity(here(copied(tiny_llm, tmp_path / "other", **{"config.json": b"{}"})))
    assert len({backend_identity(here(name)) for name in ("a/b", "a/c", "a/b@main", "a/b@0123")}) == 4
