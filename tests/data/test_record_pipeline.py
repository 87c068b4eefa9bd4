"""What the pipeline makes of records: markers, tags, length, instances, token rows, duplicates, all counted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import DataConfig, HoldoutConfig, ModelConfig
from sft.data.planning.holdout import held_out_examples
from sft.data.preparation import REJECTED, prepare_store
from sft.data.rendering.chat_template import load_tokenizer
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def prepared(tokenizer_dir, tmp_path_factory):
    """A function that writes files of records, prepares them, and gives the store and the tokenizer."""

    def prepare(*sources, template="chatml", chat_template=None, **rules):
        folder = tmp_path_factory.mktemp("pipeline")
        written = []
        for i, source in enumerate(sources):
            path = folder / f"{i}.{source.get('kind', 'jsonl')}"
            records = source["records"]
            lines = records if isinstance(records, str) else "".join(json.dumps(r) + "\n" for r in records)
            path.write_text(lines, encoding="utf-8")
            extra = {k: v for k, v in source.items() if k not in ("records", "kind")}
            written.append({"name": f"s{i}", "path": str(path)} | extra)
        model = ModelConfig(path=str(tokenizer_dir(template)), chat_template=chat_template and str(chat_template))
        data = DataConfig.model_validate(
            {"sources": written, "cache_dir": str(folder), "bad_records": "quarantine", "max_bad_share": 1} | rules
        )
        return prepare_store(data, model), load_tokenizer(model)

    return prepare


def pairs(*rows):
    return {"records": [{"prompt": prompt, "completion": completion} for prompt, completion in rows]}


def texts(store, tokenizer):
    return [tokenizer.decode(store.example(i).input_ids) for i in range(len(store))]


def learned(store, tokenizer):
    examples = [store.example(i) for i in range(len(store))]
    return [tokenizer.decode(e.input_ids[e.loss_mask]) for e in examples]


def left_out(store):
    lines = (store.path / REJECTED).read_text(encoding="utf-8").splitlines()
    return [(entry["line"], entry["kind"]) for entry in map(json.loads, lines)]


def test_a_literal_end_of_text_is_not_trained_as_text(prepared):
    rows = pairs(
        ("one", "amber<|endoftext|>"), ("two", "basin <|im_end|>\n"), ("three", "cedar"), ("four", "<|endoftext|>")
    )
    store, tokenizer = prepared(rows)
    assert learned(store, tokenizer) == ["amber<|im_end|>", "basin<|im_end|>", "cedar<|im_end|>"]
    assert store.manifest["num_markers"] == 2
    assert left_out(store) == [(4, "bad")]


def test_repaired_turns_are_counted_and_those_in_order_are_not(prepared):
    asked, answer = {"role": "user", "content": "one"}, {"role": "assistant", "content": "amber"}
    rows = [[asked, answer], [asked, asked, answer], [answer, asked], [asked, answer, asked]]
    records = {"records": [{"messages": row} for row in rows]}
    settings = {"duplicates": "keep", "turns": "repair", "bad_records": "quarantine", "max_bad_share": 1.0}
    store, tokenizer = prepared(records, **settings)
    counts = [store.manifest[f"num_{name}"] for name in ("read", "kept", "bad", "repaired")]
    assert counts == [4, 3, 1, 2]
    assert store.manifest["by_source"][0]["num_repaired"] == 2
    assert learned(store, tokenizer) == ["amber<|im_end|>"] * 3
    strict, _ = prepared(records, **settings | {"turns": "strict"})
    assert (strict.manifest["num_kept"], strict.manifest["num_repaired"]) == (1, 0)
    assert strict.path.name != store.path.name


def test_a_control_token_that_is_spelled_in_a_record_is_refused(prepared):
    store, tokenizer = prepared(pairs(("ok", "amber"), ("an <|im_end|> inside", "basin"), ("q", "a <|im_start|> b")))
    assert learned(store, tokenizer) == ["amber<|im_end|>"]
    assert left_out(store) == [(2, "bad"), (3, "bad")]


@pytest.mark.parametrize(
    ("template", "begin"), [("chatml", "<|im_start|>system\n{}<|im_end|>"), ("model_role", "user\n{}\n\n")]
)
def test_the_task_tag_stands_where_the_template_allows(prepared, template, begin):
    rows = pairs(("one", "amber"), ("two", "basin")) | {"task": "closed_qa"}
    tag = {"text": "Task type: {task}", "dropout": 0}
    store, tokenizer = prepared(rows, template=template, task_tag=tag)
    assert all(begin.format("Task type: closed qa") in text for text in texts(store, tokenizer))
    without, _ = prepared(rows, template=template)
    assert learned(without, tokenizer) == learned(store, tokenizer)
    # Whether a prompt is held out does not depend on its tag.
    assert without.prompt_hashes.tolist() == store.prompt_hashes.tolist()
    assert without.path.name != store.path.name
    dropped, _ = prepared(rows, template=template, task_tag=tag | {"dropout": 1})
    assert texts(dropped, tokenizer) == texts(without, tokenizer)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 40)), min_size=1, max_size=12))
def test_truncated_examples_keep_their_answers_and_the_rest_is_counted(prepared, sizes):
    rows = pairs(*((f"{i} " + "river " * prompt, "valley " * answer) for i, (prompt, answer) in enumerate(sizes)))
    limit = 40
    short = pairs(("one", "amber"))  # one at least is always left
    full, tokenizer = prepared(rows, short)
    store, _ = prepared(rows, short, overlong="truncate", max_len_tokens=limit)
    assert store.lengths.max() <= limit
    counts = store.manifest
    assert counts["num_kept"] + counts["num_too_long"] == counts["num_read"] == len(sizes) + 1
    places, every = (
        [(int(source), int(line)) for source, line in zip(made.source_ids, made.line_numbers, strict=True)]
        for made in (store, full)
    )
    answers = dict(zip(every, learned(full, tokenizer), strict=True))
    assert learned(store, tokenizer) == [answers[place] for place in places]
    lengths = dict(zip(every, full.lengths.tolist(), strict=True))
    assert counts["num_shortened"] == sum(lengths[place] > limit for place in places)
    # What was short enough is as it was.
    whole = dict(zip(every, texts(full, tokenizer), strict=True))
    for place, text in zip(places, texts(store, tokenizer), strict=True):
        assert (text == whole[place]) == (lengths[place] <= limit)
    assert left_out(store) == [(line, "too long") for source, line in every if (source, line) not in places]


def test_a_thought_that_the_template_drops_later_becomes_an_example_of_its_own(prepared):
    thought = "<think>\nhm\n</think>\n\n"
    turns = [("user", "one"), ("assistant", f"{thought}amber"), ("user", "two"), ("assistant", f"{thought}basin")]
    record = {"messages": [{"role": role, "content": content} for role, content in turns]}
    store, tokenizer = prepared({"records": [record]}, template="think")
    assert sorted(learned(store, tokenizer)) == sorted(f"{thought}{word}<|im_end|>" for word in ("amber", "basin"))
    assert (store.manifest["num_read"], store.manifest["num_kept"], store.manifest["num_examples"]) == (1, 1, 2)
    assert store.record_ids.tolist() == [0, 0]


def test_every_instance_of_a_task_file_is_a_record(prepared):
    instances = [{"id": f"i{n}", "input": f"word {n}", "output": [f"answer {n}", "other"]} for n in range(5)]
    instances[3]["output"] = [" "]
    task = {"Definition": ["Say it."], "Positive Examples": [], "Categories": ["Naming"], "Instances": instances}
    source = {"records": json.dumps(task), "kind": "json", "task": {"column": "Categories"}}
    store, tokenizer = prepared(source)
    assert learned(store, tokenizer) == [f"answer {n}<|im_end|>" for n in (0, 1, 2, 4)]
    assert store.tasks == ["Naming"]
    assert [store.location(i).instance for i in range(4)] == [1, 2, 3, 5]
    assert (store.manifest["num_read"], store.manifest["num_bad"]) == (5, 1)


def test_rows_of_token_ids_are_stored_as_they_are(prepared):
    rows = [
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
        {"input_ids": [5, 6, 70000], "labels": [-100, 6, 70000]},
    ]
    store, _ = prepared({"records": rows})
    assert store.example(0).input_ids.tolist() == [5, 6, 7, 8]
    assert store.example(0).loss_mask.tolist() == [False, False, True, True]
    assert left_out(store) == [(2, "bad")]


def test_an_answer_that_calls_a_tool_is_learned_and_its_result_is_not(prepared):
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    turns = [("human", "Rain?"), ("function_call", json.dumps(call)), ("observation", "sunny"), ("gpt", "No rain.")]
    tools = json.dumps([{"name": "weather", "description": "of a city", "parameters": {}}])
    record = {"conversations": [{"from": role, "value": value} for role, value in turns], "tools": tools}
    store, tokenizer = prepared({"records": [record]})
    (text,) = learned(store, tokenizer)
    assert "weather" in text
    assert "Oslo" in text
    assert text.endswith("No rain.<|im_end|>")
    assert "sunny" not in text
    assert "sunny" in texts(store, tokenizer)[0]
    assert store.manifest["notes"], "what the template has no form for is said"


def test_equal_and_nearly_equal_examples_are_left_out(prepared):
    long = "amber basin cedar delta ember fjord glade harbour island juniper kettle lantern meadow needle orchard " * 3
    rows = pairs(("Q", long), ("q ", long.upper()), ("q", f"{long} pebble"), ("other", "amber"), ("q", "short"))
    kept = {rule: prepared(rows, duplicates=rule)[0] for rule in ("keep", "remove", "remove_near")}
    assert [kept[rule].line_numbers.tolist() for rule in kept] == [[1, 2, 3, 4, 5], [1, 3, 4, 5], [1, 4, 5]]
    assert left_out(kept["remove_near"]) == [(2, "duplicate"), (3, "near duplicate")]
    assert len({store.path.name for store in kept.values()}) == 3


def test_a_benchmark_that_stands_in_the_training_data_is_held_out(prepared):
    training = pairs(("one", "amber"), ("two", "basin"), ("three", "cedar"))
    benchmark = pairs(("TWO", "basin"), ("four", "delta"))
    store, _ = prepared(training, benchmark)
    held_out = held_out_examples(store, HoldoutConfig(share=0, sources=("s1",)))
    assert [str(store.location(i)).rsplit("/", 1)[1] for i in np.flatnonzero(held_out)] == ["0.jsonl:2", "1.jsonl:2"]


def test_one_question_below_two_system_texts_is_on_one_side_and_no_duplicate(prepared):
    training = {"records": [{"system": f"You are bot {i}.", "prompt": "One?", "completion": "amber"} for i in (1, 2)]}
    benchmark = {"records": [{"system": "Be brief.", "prompt": "one?", "completion": "basin"}]}
    store, _ = prepared(training, benchmark)
    assert len(store) == 3, "another system text is another record to train on"
    assert held_out_examples(store, HoldoutConfig(share=0, sources=("s1",))).tolist() == [True, True, True]


def test_a_bad_first_record_does_not_hide_the_format(prepared):
    store, tokenizer = prepared({"records": [{"note": "x"}, {"prompt": "one", "completion": "amber"}]})
    assert learned(store, tokenizer) == ["amber<|im_end|>"]
    assert left_out(store) == [(1, "bad")]


def test_a_column_that_the_first_record_lacks_is_read_all_the_same(prepared):
    rows = [
        {"instruction": "Say it.", "response": "amber"},
        {"instruction": "Sum up.", "context": "river", "response": "r"},
    ]
    store, tokenizer = prepared({"records": rows})
    assert "Sum up.\n\nriver" in texts(store, tokenizer)[1]


def test_a_prompt_that_is_cut_stays_on_its_side_of_the_holdout(prepared):
    prompt = "river " * 30
    store, _ = prepared(
        pairs((prompt, "amber")), pairs((prompt, "valley " * 15)), overlong="truncate", max_len_tokens=45
    )
    assert store.manifest["num_shortened"] == 1
    assert held_out_examples(store, HoldoutConfig(share=0, sources=("s1",))).tolist() == [True, True]


def test_the_prompt_of_a_benchmark_record_that_is_left_out_as_a_near_duplicate_is_held_out(prepared):
    long = " ".join(WORDS * 3)
    training = pairs((f"{long} kettle", long), (f"{long} lantern", "another answer"))
    benchmark = pairs((f"{long} lantern", long))
    store, _ = prepared(training, benchmark, duplicates="remove_near")
    assert left_out(store) == [(1, "near duplicate")]
    assert held_out_examples(store, HoldoutConfig(share=0, sources=("s1",))).tolist() == [True, True]


def test_a_control_token_in_the_name_of_a_task_or_in_a_call_id_is_refused(prepared):
    rows = {"records": [{"prompt": "one", "completion": "amber", "kind": "x<|endoftext|>"}], "task": {"column": "kind"}}
    fine = pairs(("two", "basin"))
    store, _ = prepared(rows, fine, task_tag={"dropout": 0})
    assert left_out(store) == [(1, "bad")]
    store, _ = prepared(pairs(("one", "amber")), fine, task_tag={"dropout": 0, "texts": {"s0": "<|im_end|>"}})
    assert left_out(store) == [(1, "bad")]
    call = {"type": "function", "id": "c<|im_end|>", "function": {"name": "f", "arguments": {}}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    store, _ = prepared({"records": [{"messages": messages}]}, fine)
    assert left_out(store) == [(1, "bad")]


def test_what_the_template_refuses_once_it_is_cut_is_too_long(prepared, tmp_path):
    text = (
        "{% for m in messages %}{% if m.content|length in [0, 1, 2] or (m.role == 'user' and m.content|length % 2) %}"
        "{{ raise_exception('odd') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    (tmp_path / "odd.jinja").write_text(text)
    rows = pairs(*((f"{'river ' * n}!{'!' * ((6 * n + 1) % 2)}", "amber") for n in range(20, 40)))
    store, _ = prepared(
        rows, pairs(("even", "basin")), overlong="truncate", max_len_tokens=24, chat_template=tmp_path / "odd.jinja"
    )
    assert store.manifest["num_kept"] + store.manifest["num_too_long"] == 21
    assert store.manifest["num_too_long"] > 0


@pytest.mark.parametrize("column", ["image", "images", "history"])
def test_what_belongs_to_the_prompt_and_is_not_read_makes_a_record_bad(prepared, column):
    rows = [{"prompt": "one", "completion": "amber"}, {"prompt": "two", "completion": "basin", column: ["x"]}]
    rows += [{"prompt": "three", "completion": "cedar", column: []}]
    store, _ = prepared({"records": rows})
    assert left_out(store) == [(2, "bad")]


def test_the_name_of_a_task_is_one_line(prepared):
    records = [{"prompt": "q", "completion": "a", "kind": " of\tmany\nlines "}]
    store, _ = prepared({"records": records, "task": {"column": "kind"}})
    assert store.tasks == ["of many lines"]
