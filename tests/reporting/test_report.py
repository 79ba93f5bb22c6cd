"""report.html: made of whatever a run folder holds, self-contained, and with every text escaped."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.diagnosis.diagnose import diagnose
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.evaluation.verdict import judge
from sourcewise.metrics.outputs import output_metrics
from sourcewise.reporting.checked import paragraphs
from sourcewise.reporting.report import write_report
from sourcewise.reporting.samples import differences
from sourcewise.training.events import read_lines

pytestmark = pytest.mark.pages

REFERENCES = [
    f"the {a} man {b} a {c} dog" for a in ("old", "tall", "sad") for b in ("sees", "has") for c in ("red", "big")
]
VOID = {"meta", "link", "br", "img", "input", "line", "polyline"}


class Page(HTMLParser):
    """A page's tags, checked to be nested, and its texts by heading."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.section = [], [], {}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.section = dict(attrs)["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + data

    def text(self, section):
        return " ".join(self.texts.get(section, "").split())


def write_run(folder, outputs=REFERENCES, bits=(3.5, 4.5)):
    (folder / "recipe.yaml").write_text("name: mine\ntrain:\n  steps: 400\n", encoding="utf-8")
    rates = {"learning_rate": 1e-3, "gradient_norm": 1.5, "tokens_per_s": 12345.6}
    lines = [
        {"kind": "train", "step": s, "epoch": s / 100, "loss": 400 / s, "seconds": s * 0.5} | rates
        for s in range(20, 401, 20)
    ]
    for step in (200, 400):
        lines.append(
            {"kind": "evaluation", "step": step, "loss": 0.77 - step / 20000, "source_bits": 3.0, "bleu": step / 10}
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [Row(f"row-{i}", "", r, o) for i, (r, o) in enumerate(zip(REFERENCES, outputs, strict=True))]
    evaluation = Evaluation({}, rows)
    evaluation.metrics |= output_metrics(evaluation.references, evaluation.outputs, [True] * len(rows))
    evaluation.metrics |= {
        "loss": 0.75,
        "source_bits": sum(bits) / 2,
        "source_bits_ci95": list(bits),
        "target_tokens": 100,
    }
    evaluation.metrics["verdict"] = judge(evaluation.metrics, evaluation.references, evaluation.outputs).text
    evaluation.write(folder)


def page(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_a_healthy_run(tmp_path):
    write_run(tmp_path)
    found = page(tmp_path)
    assert "excellent" in found.text("verdict") and "BLEU 100.0: excellent" in found.text("verdict")
    assert "No rule found anything" in found.text("findings")
    assert "step 400 of 400" in found.text("") and "3 min 20 s" in found.text("")
    for title in ("Loss", "BLEU", "Source bits", "Learning rate", "Gradient norm"):
        assert title in found.text("curves")
    assert sum(tag == "svg" for tag, _ in found.tags) == 7
    assert "the old man sees a red dog" in found.text("samples")
    assert "steps: 400" in found.text("again") and "sourcewise train" in found.text("again")
    assert "python" in found.text("again") and "3 min 20 s for 400 steps" in found.text("again")
    assert ("html", {"lang": "en"}) in found.tags


def test_a_collapsed_run_says_so_first(tmp_path):
    write_run(tmp_path, ["the station the station the station"] * len(REFERENCES), (0.0, 0.04))
    found = page(tmp_path)
    assert "failed" in found.text("verdict")
    assert "Start with SRC001" in found.text("verdict")
    findings = found.text("findings")
    assert findings.index("SRC001") < findings.index("OUT001")
    assert "0.020 bits" in findings and "--data.train.limit 20" in findings
    headings = [attributes.get("id") for tag, attributes in found.tags if tag == "h2"]
    assert headings == ["verdict", "findings", "curves", "samples", "traces", "lengths", "again"]


def add_lines(folder, *lines):
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


NOTED = {"kind": "finding", "name": "rate too high", "level": "error", "evidence": "it rose", "cure": "lower it"}


def test_when_a_finding_was_first_told_stands_beside_it(tmp_path):
    write_run(tmp_path, ["the station the station the station"] * len(REFERENCES), (0.0, 0.04))
    add_lines(
        tmp_path,
        {"kind": "watch", "step": 0, "preflight": True, "not_checked": []},
        {**NOTED, "step": 20, "code": "SRC001", "level": "warning"},
        {**NOTED, "step": 1200, "code": "SRC001"},  # the later one counts
        {**NOTED, "step": 0, "code": "ZZZ002", "level": "note"},
        {**NOTED, "step": 40, "code": "X", "level": "none of ours"},
    )
    told = page(tmp_path).text("findings")
    assert "error SRC001 source unused in training, step 1,200 A target token gains".lower() in told.lower()
    assert "note ZZZ002 rate too high before training" in told
    assert told.index("SRC001") < told.index("ZZZ002") and "X rate" not in told


def test_it_tells_what_was_looked_at_and_lists_what_was_not(tmp_path):
    def told(**watch):
        write_run(tmp_path)
        if watch:
            line = {"kind": "watch", "step": 0} | watch
            path = tmp_path / "metrics.jsonl"
            path.write_text(json.dumps(line) + "\n" + path.read_text())
        pages = write_report(tmp_path, training=True).read_text(encoding="utf-8"), page(tmp_path)
        return [p.text("findings").split(" Not checked here") for p in (Page(pages[0]), pages[1])]

    course = "the course of training, up to step 400; the evaluation, of 12 examples."
    for (seen, left), (_, finally_left) in (told(), told(preflight=False, not_checked=[])):
        assert seen.endswith(f"Looked at: {course}")
        assert all(code in left for code in ("DAT001", "WIR001", "MEM001")) and "TRN001" not in left
        assert (
            "its training data and initial wiring: " in finally_left
            and "the trained network: " in finally_left
            and "MEM001" not in finally_left
        )
    for seen, left in told(preflight=True, not_checked=["validation examples (DAT008): <none>"]):
        assert seen.endswith(f"Looked at: the data and the wiring, before the first step; {course}")
        assert "DAT001" not in left and "WIR001" not in left
        assert "validation examples (DAT008): <none>" in left


@pytest.mark.parametrize("outputs", [REFERENCES, ["the station"] * len(REFERENCES)], ids=["well", "ill"])
def test_the_cause_is_that_of_diagnose_whatever_was_told_on_the_way(tmp_path, outputs):
    write_run(tmp_path, outputs)
    add_lines(tmp_path, {**NOTED, "step": 20, "code": "TRN002"})
    cause, said = diagnose(tmp_path).cause, page(tmp_path)
    assert "TRN002" not in said.text("findings")  # it is gone at the end
    assert (f"Start with {cause}" in said.text("verdict")) == (cause is not None) == (outputs is not REFERENCES)


def test_written_again_it_is_the_same_page(tmp_path):
    write_run(tmp_path)
    first = write_report(tmp_path).read_text(encoding="utf-8")
    again = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.sub(r"Written [\d: -]+", "", first) == re.sub(r"Written [\d: -]+", "", again)


def test_a_broken_traces_file_is_named(tmp_path):
    write_run(tmp_path)
    (tmp_path / "traces.json").write_text('{"version": 1, "examples": [{"id"')
    with pytest.raises(RequestError, match=r"traces\.json: not what a training writes"):
        write_report(tmp_path)
    (tmp_path / "traces.json").write_text('{"version": 99}')
    assert "No traces are here" in page(tmp_path).text("traces")


def test_lengths_of_single_words_are_counted_in_characters(tmp_path):
    write_run(tmp_path)
    assert "Words examples by length" in page(tmp_path).text("lengths")
    rows = [Row(str(i), "", f"2020-01-{i:02}", "2020-01-01") for i in range(1, 13)]
    Evaluation(output_metrics([r.reference for r in rows], [r.output for r in rows], [True] * 12), rows).write(tmp_path)
    assert "Characters examples by length references 10.0 on average" in page(tmp_path).text("lengths")


def test_nothing_is_fetched(tmp_path):
    write_run(tmp_path)
    text = (write_report(tmp_path)).read_text(encoding="utf-8")
    found = Page(text)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/)|@import|url\(", text)
    for tag, attributes in found.tags:
        assert "src" not in attributes and (tag != "link" or attributes["href"] == "data:,")
        assert tag not in ("img", "iframe", "object", "embed")


EVIL = '<script>alert("1")</script>'


def test_every_text_of_the_user_is_escaped(tmp_path):
    write_run(tmp_path, [EVIL] * len(REFERENCES))
    (tmp_path / "recipe.yaml").write_text(f"name: '{EVIL}'\n# {EVIL} </pre>\n", encoding="utf-8")
    rows = (
        (tmp_path / "translations.tsv").read_text(encoding="utf-8").replace("row-0", f"<b>{EVIL}").replace("old", EVIL)
    )
    (tmp_path / "translations.tsv").write_text(rows, encoding="utf-8")
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "start", "device": EVIL, EVIL: 1}) + "\n")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert text.count("<script>") == 1  # ours
    assert text.count("&lt;script&gt;alert") > 10
    assert "<b>" not in text
    assert "</b>" not in text


@pytest.mark.parametrize(
    "kept",
    [
        {"recipe.yaml"},
        {"metrics.jsonl"},
        {"metrics.json"},
        {"metrics.json", "translations.tsv"},
        {"metrics.jsonl", "translations.tsv"},
        {"recipe.yaml", "metrics.jsonl"},
        {"recipe.yaml", "translations.tsv"},
    ],
)
def test_whatever_is_there_makes_a_page(tmp_path, kept):
    write_run(tmp_path)
    for path in list(tmp_path.iterdir()):
        if path.name not in kept:
            path.unlink()
    found = page(tmp_path)
    assert ("Nothing was logged" in found.text("curves")) == ("metrics.jsonl" not in kept)
    assert ("No outputs are here" in found.text("samples")) == ("translations.tsv" not in kept)
    judged = "translations.tsv" in kept and len(kept) > 1 and "recipe.yaml" not in kept
    assert ("the evaluation, of 12 examples." in found.text("findings")) == judged
    assert ("up to step 400" in found.text("findings")) == ("metrics.jsonl" in kept)
    assert ("Nothing was looked at yet" in found.text("findings")) == (not judged and "metrics.jsonl" not in kept)
    assert "No traces are here" in found.text("traces")
    assert ("No outputs are here" in found.text("lengths")) == ("translations.tsv" not in kept)
    assert ("400 of" in found.text("")) == ({"recipe.yaml", "metrics.jsonl"} <= kept)
    assert ("still training" in found.text("")) == ("metrics.jsonl" in kept)


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 20, "loss": 3.5}\n{"kind": "tra')
    found = page(tmp_path)
    assert "step 20" in found.text("")
    assert "No outputs yet" in found.text("verdict")


def test_figures_that_are_not_numbers_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "evaluation", "step": 20, "loss": NaN, "bleu": 3.25}\n')
    found = page(tmp_path)
    assert "3.2" in found.text("verdict")
    assert "nan" not in found.text("verdict").lower()


def test_broken_lines_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n[1]\n\xff\xfe\n\n{"kind": "train", "step": 2}\n{"kind": "tr')
    assert [line["step"] for line in read_lines(path)] == [1, 2]


def test_the_old_report_is_replaced_whole(tmp_path):
    write_run(tmp_path)
    (tmp_path / "report.html").write_text("old")
    page(tmp_path)
    assert not [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(RequestError, match="no such run folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(RequestError, match="not a run"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="no such run folder"):
        write_report(tmp_path / "file")


def test_differences_are_marked_word_by_word():
    output, reference = differences("the old dog sees me", "the young dog sees")
    assert output == [
        ("the", False),
        (" ", False),
        ("old", True),
        (" ", False),
        ("dog sees", False),
        (" ", False),
        ("me", True),
    ]
    assert [text for text, differs in reference if differs] == ["young"]


@given(st.text(st.sampled_from("ab 我\u3000\n"), max_size=12), st.text(st.sampled_from("ab 我\u3000\n"), max_size=12))
def test_marked_pieces_are_the_texts_again(output, reference):
    left, right = differences(output, reference)
    assert "".join(text for text, _ in left) == output
    assert "".join(text for text, _ in right) == reference
    if output.split() == reference.split():
        assert not any(differs and text.strip() for text, differs in left + right)


def test_lines_to_paste_are_told_from_prose():
    assert paragraphs("Do this:\n  --seed 1\nor that.") == [
        ("Do this:", False),
        ("--seed 1", True),
        ("or that.", False),
    ]
