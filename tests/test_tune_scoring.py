"""Scores of answers after a shared question, against plain forwards of every whole sequence."""

import random

import pytest
import torch
import transformers
from helpers.tasks import made_tasks
from test_train_packing import ERRORS
from test_tune_decode_ran_out import Card

from harness.arc.prompt import build
from harness.catalog import model_folder
from harness.catalog.precisions import find
from harness.records.cell import Recipe
from harness.train import model as models
from harness.train.compat import import_peft
from harness.tune import scoring
from harness.tune.decode_batches import TokenLimit
from harness.tune.scoring import log_likelihoods, shares_prefixes


@pytest.fixture(scope="module")
def loaded(arc_folder):
    spec = model_folder.from_folder(arc_folder)
    model = models.load(spec, find("fp32"), "fp32", Recipe(lora_r=4), str(arc_folder), torch.device("cpu")).model
    torch.manual_seed(0)
    with torch.no_grad():  # an adapter that does something
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.05)
    return model, models.load_tokenizer(str(arc_folder))


def _plain(model, prompt, answer):
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0].double()
    log_probs = logits.log_softmax(-1)
    return sum(log_probs[len(prompt) - 1 + k, token].item() for k, token in enumerate(answer))


def _questions(tokenizer):
    rng = random.Random(0)
    tasks, _ = made_tasks(3)
    digits = tokenizer("0123456789\n", add_special_tokens=False)["input_ids"]
    prompts = [build(tokenizer, task.demonstrations, task.test_inputs[0], None, "rows").ids for task in tasks]
    return [(p, [[*rng.choices(digits, k=n), tokenizer.eos_token_id] for n in (0, 5, 40, 5)]) for p in prompts]


@pytest.mark.parametrize("logits", [1, 1 << 26])
def test_scores_are_those_of_whole_sequences(loaded, monkeypatch, logits):
    """One answer at a time, and all of a question at once."""
    model, tokenizer = loaded
    monkeypatch.setattr(scoring, "_LOGITS", logits)
    questions = _questions(tokenizer)
    found = log_likelihoods(model, questions)
    assert model.training
    for (prompt, answers), scores in zip(questions, found, strict=True):
        expected = [_plain(model, prompt, answer) for answer in answers]
        assert scores == pytest.approx(expected, abs=1e-4, rel=1e-5)
    assert log_likelihoods(model, [(questions[0][0], [])]) == [[]]


def test_the_question_is_read_once(loaded):
    model, tokenizer = loaded
    questions, read = _questions(tokenizer), []
    hook = model.get_base_model().model.register_forward_pre_hook(
        lambda _, args, inputs: read.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    shares_prefixes(model.get_base_model().config)
    read.clear()
    log_likelihoods(model, questions)
    hook.remove()
    assert read == [shape for prompt, _ in questions for shape in ((1, len(prompt)), (4, 40))]


def test_answers_attend_to_the_question_without_a_copy_of_its_keys_per_head(monkeypatch):
    config = transformers.LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    torch.manual_seed(0)
    lora = import_peft().LoraConfig(r=2, target_modules=["q_proj"])
    model = import_peft().get_peft_model(transformers.LlamaForCausalLM(config), lora)
    prompt, answers = list(range(3, 30)), [[5, 6, 7, 2], [8, 2], [9, 2]]
    shares_prefixes(config)
    kernel, key_heads = torch.nn.functional.scaled_dot_product_attention, []

    def counted(query, key, *args, **options):
        key_heads.append(key.shape[1])
        return kernel(query, key, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        (scores,) = log_likelihoods(model, [(prompt, answers)])
    assert key_heads[-2:] == [2, 2]  # of the two layers, for the answers
    assert scores == pytest.approx([_plain(model, prompt, answer) for answer in answers], abs=1e-4)


def test_where_the_cache_is_not_right_whole_sequences_are_read(loaded, monkeypatch):
    model, tokenizer = loaded
    questions = _questions(tokenizer)
    shared = log_likelihoods(model, questions)
    monkeypatch.setattr(scoring, "shares_prefixes", lambda config: False)
    for one, other in zip(log_likelihoods(model, questions), shared, strict=True):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("problem", ERRORS)
def test_memory_that_runs_out_halves_the_answers_read_at_once(loaded, problem):
    model, tokenizer = loaded
    questions, heard = _questions(tokenizer), []
    expected = log_likelihoods(model, questions)
    limit = TokenLimit(note=heard.append)
    with Card(model, 1, problem) as card:
        found = log_likelihoods(model, questions, limit=limit)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-4, rel=1e-5)
        # Four answers, two, one; what was learnt stays for the next questions.
        assert [rows for rows in card.rows if rows > 1] == [4, 2]
    assert heard == limit.notes and heard[0].startswith("memory ran out with 4 answers at once")
    with Card(model, 0, problem), pytest.raises(torch.OutOfMemoryError):
        log_likelihoods(model, questions, limit=limit)
    with Card(model, 1, RuntimeError("CUDA error: device-side assert triggered")), pytest.raises(RuntimeError):
        log_likelihoods(model, questions)
    assert model.training


@pytest.mark.parametrize("shared", [True, False])
def test_stopped_the_questions_that_are_whole_have_their_scores(loaded, monkeypatch, shared):
    if not shared:
        monkeypatch.setattr(scoring, "shares_prefixes", lambda config: False)
    model, tokenizer = loaded
    questions = _questions(tokenizer)
    expected, asked = log_likelihoods(model, questions), []
    for most in range(16):
        asked.clear()

        def stop(most=most):
            asked.append(1)
            return len(asked) > most

        found = log_likelihoods(model, questions, stop=stop)
        whole = [values for values in found if values is not None]
        assert whole == expected[: len(whole)] and len(found) == 3
        # Every question asks twice with one cache, and before each of its four answers without.
        assert len(whole) == min(3, most // (2 if shared else 4))
    assert len(whole) == 3


def _config(kind, **more):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    return kind(vocab_size=64, num_hidden_layers=2, **sizes, **more)


def test_windows_are_checked_and_states_are_not_shared():
    """Sliding windows are right with a whole cache; a model of states has none to share."""
    assert shares_prefixes(_config(transformers.MistralConfig, sliding_window=16))
    assert shares_prefixes(_config(transformers.Qwen2Config))
    mamba = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
    assert not shares_prefixes(mamba)
