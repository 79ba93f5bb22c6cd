"""Splits of tables: groups whole, rows byte for byte, nothing overwritten."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from sourcewise.cli import main
from sourcewise.data.readers.tables import read_table
from sourcewise.data.splitting import Size, Split, split_file
from sourcewise.errors import RequestError
from tests.data.test_near_copies import sentences

TENTH = {"valid": Size.parse("10%", "--valid"), "test": Size.parse("10%", "--test")}


def table(rows: int = 200, groups: int = 40) -> str:
    return "id\tsource\ttarget\tsigner\n" + "".join(
        f"c{i}\tsource {i}\ttarget {i}\ts{i * 7 % groups}\n" for i in range(rows)
    )


def parts(found: Split) -> list[bytes]:
    return [part.path.read_bytes() for part in found.parts]


def groups_of(path: Path, column: str = "signer") -> set[str]:
    return set(read_table(path).text(column))


def test_groups_are_whole_and_counts_right(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(table())
    found = split_file(path, TENTH, by=["signer"])
    assert [part.path.name for part in found.parts] == ["all.train.tsv", "all.valid.tsv", "all.test.tsv"]
    assert [part.rows for part in found.parts] == [160, 20, 20] and found.rows == 200 and found.groups == 40
    sets = [groups_of(part.path) for part in found.parts]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40
    assert [part.groups for part in found.parts] == [len(each) for each in sets]


def test_the_seed_decides(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(table())
    first = parts(split_file(path, TENTH, by=["signer"]))
    assert parts(split_file(path, TENTH, by=["signer"], force=True)) == first
    assert parts(split_file(path, TENTH, by=["signer"], force=True, seed=1)) != first


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\r"])
def test_every_row_is_kept_byte_for_byte(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "all.tsv"
    lines = table(60, 12).replace("source 7\t", "sörcé ß 雨 \u2028 7\t").split("\n")[:-1]
    data = (end.join(lines) + end).encode(encoding)
    path.write_bytes(data)
    found = split_file(path, TENTH, by=["signer"])
    head = (lines[0] + end).encode(encoding)
    bodies = [part.removeprefix(head) for part in parts(found)]
    assert all(len(body) < len(part) for body, part in zip(bodies, parts(found), strict=True))
    assert sum(map(len, bodies)) == len(data) - len(head)
    every = [row for part in found.parts for row in read_table(part.path).text("source")]
    assert sorted(every) == sorted(read_table(path).text("source"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_cells_with_line_breaks_stay_whole(tmp_path: Path, end: str) -> None:
    path = tmp_path / "all.csv"
    rows = [
        f'"line one{"" if end == chr(13) else chr(10)} of {i}, ""quoted""","t {i}","s{i % 9}"{end}' for i in range(60)
    ]
    path.write_bytes(("source,target,signer" + end + "".join(rows)).encode())
    found = split_file(path, TENTH, by=["signer"], folder=tmp_path / "out")
    written = [part.split(end.encode(), 1)[1] for part in parts(found)]
    assert all(any(row.encode() in part for part in written) for row in rows)
    assert sum(map(len, written)) == sum(map(len, rows))


def test_excel_on_a_mac_ends_rows_otherwise_than_lines_inside_cells(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    rows = [f'"a\nb {i}",t {i},s{i % 9}\r' for i in range(60)]
    path.write_bytes(("source,target,signer\r" + "".join(rows)).encode())
    written = b"".join(parts(split_file(path, TENTH, by=["signer"])))
    assert all(row.encode() in written for row in rows) and len(written) == 3 * 21 + sum(map(len, rows))


def test_a_separator_line_blank_lines_and_a_last_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    rows = [f"x {i};y {i};s{i % 9}" for i in range(60)]
    path.write_text("sep=;\nsource;target;signer\n" + "\n\n".join(rows))
    found = split_file(path, TENTH, by=["signer"])
    assert all(part.startswith(b"sep=;\nsource;target;signer\n") for part in parts(found))
    assert sorted(t for part in found.parts for t in read_table(part.path).text("source")) == sorted(
        row.split(";")[0] for row in rows
    )


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    lines = [
        json.dumps({"source": f"x\u2028{i}", "n": i, "speaker_id": i % 11}, ensure_ascii=i % 2 == 0) for i in range(66)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    written = b"".join(parts(split_file(path, TENTH, by=["speaker"])))
    assert sorted(written.decode().split("\n")[:-1]) == sorted(lines)


def test_parquet_keeps_columns_and_types(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = pa.table(
        {"text": [f"t{i}" for i in range(60)], "n": pa.array(range(60), pa.int16()), "signer": list(range(6)) * 10}
    )
    pq.write_table(made, tmp_path / "all.parquet")
    found = split_file(tmp_path / "all.parquet", TENTH, by=["signer"])
    read = [pq.read_table(part.path) for part in found.parts]
    assert all(each.schema.equals(made.schema) for each in read)
    assert sorted(n for each in read for n in each["n"].to_pylist()) == list(range(60))


def test_near_copies_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    rows = [
        f"the {colour} thing: {text}\ty {i}"
        for i, text in enumerate(sentences(40))
        for colour in ("red", "green", "blue")
    ]
    path.write_text("source\ttarget\n" + "\n".join(rows) + "\n")
    found = split_file(path, TENTH, alike=["source"])
    sets = [groups_of(part.path, "target") for part in found.parts]
    assert found.groups == 40 and sum(map(len, sets)) == 40


def test_several_columns_keep_together_what_shares_any(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(
        "id\tsource\tsigner\trecording\n" + "".join(f"{i}\tx\ts{i // 2}\tr{(i + 1) // 2 % 30}\n" for i in range(60))
    )
    with pytest.raises(RequestError, match="one group, too few for 3 sets"):
        split_file(path, TENTH, by=["signer", "recording"])


def test_a_part_of_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text("id\ttext\n" + "".join(f"show{i // 4}-{i}\tt {i}\n" for i in range(80)))
    found = split_file(path, TENTH, by=["id"], match=r"(.*)-\d+")
    assert found.groups == 20 and [part.rows for part in found.parts] == [64, 8, 8]
    with pytest.raises(RequestError, match=r"all.tsv:2: --match \(x\) finds nothing in id 'show0-0'"):
        split_file(path, TENTH, by=["id"], match="(x)", force=True)


def test_rows_of_nobody_known_are_in_train_and_told(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(table().replace("\ts3\n", "\tunknown\n").replace("\ts4\n", "\t\n"))
    found = split_file(path, TENTH, by=["signer"])
    assert found.remarks == ["10 rows name no signer (line 14, 31, 54, …): they are in train"]
    assert {"unknown", ""} <= groups_of(found.parts[0].path)


def test_few_groups_are_not_divided_and_told(tmp_path: Path) -> None:
    path = tmp_path / "all.tsv"
    path.write_text(table(groups=3))
    found = split_file(path, TENTH, by=["signer"])
    assert sorted(part.groups for part in found.parts) == [1, 1, 1]
    assert found.remarks[0].startswith("valid has 6") and "where 20 were asked for" in found.remarks[0]


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words.split()) == 2
    return capsys.readouterr().err.removeprefix("sourcewise: error: ").strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("split all.tsv", "all.tsv: how many rows? --valid 10%, --test 10%, or both"),
        ("split all.tsv --valid some", "--valid some: a share such as 10%, or a number of rows such as 500"),
        ("split all.tsv --valid 0%", "--valid 0%: a share such as 10%"),
        ("split all.tsv --valid 100%", "--valid 100%: a share such as 10%"),
        ("split all.tsv --valid -3", "--valid -3: a share such as 10%"),
        ("split all.tsv --valid 1.5", "--valid 1.5: a share such as 10%"),
        ("split all.tsv --valid 10%", "all.tsv: has groups (signer); name what stays whole, --by signer, or"),
        (
            "split all.tsv --valid 10% --by singer",
            "all.tsv: no column 'singer'; it has: id, source, target, signer; is",
        ),
        ("split all.tsv --valid 10% --by signer --alike txt", "all.tsv: no column 'txt'"),
        (
            "split all.tsv --valid 60% --test 40% --by signer",
            "all.tsv: 200 rows; valid and test leave none to train on",
        ),
        ("split all.tsv --valid 500 --by signer", "all.tsv: 200 rows; valid leave none to train on"),
        ("split all.tsv --valid 10% --by row --match (", "--match (: goes with one column; name it with --by"),
        ("split all.tsv --valid 10% --by signer --match (", "--match (: is no regular expression"),
        ("split none.tsv --valid 10%", "none.tsv: no such file"),
        ("split all.json --valid 10%", "all.json: .tsv, .csv, .jsonl and .parquet files can be split; make each"),
        ("split all.txt --valid 10%", "all.txt: .tsv, .csv, .jsonl and .parquet files can be split"),
        ("split ragged.tsv --valid 10%", "ragged.tsv:3: only 1 fields"),
        ("split empty.tsv --valid 10%", "empty.tsv: no rows to split"),
    ],
)
def test_wrong_requests(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("all.tsv").write_text(table())
    Path("ragged.tsv").write_text("source\ttarget\na\tb\nc\n")
    Path("empty.tsv").write_text("source\ttarget\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert refused(words, capsys).startswith(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_is_overwritten_without_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.tsv").write_text(table())
    Path("valid.tsv").write_text("mine")
    assert refused("split train.tsv --valid 10% --by signer -o .", capsys).startswith("train.tsv: is the file that")
    Path("all.tsv").write_text(table())
    assert refused("split all.tsv --valid 10% --by signer -o .", capsys).startswith(
        "train.tsv, valid.tsv: there already; --force replaces them"
    )
    assert Path("valid.tsv").read_text() == "mine"
    assert main(["split", "all.tsv", "--valid", "10%", "--by", "signer", "-o", ".", "--force"]) == 0
    assert Path("valid.tsv").read_text().startswith("id\tsource")


def test_the_command_says_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("all.tsv").write_text(table())
    assert main(["split", "all.tsv", "--valid", "10%", "--test", "20", "--by", "signer"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train\t160 of 200 rows (80.0 %)\t32 of 40 groups\tall.train.tsv",
        "valid\t20 of 200 rows (10.0 %)\t4 of 40 groups\tall.valid.tsv",
        "test\t20 of 200 rows (10.0 %)\t4 of 40 groups\tall.test.tsv",
    ]
    assert main(["split", "all.tsv", "--valid", "10%", "--by", "row", "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] == {"path": "all.valid.tsv", "rows": 20, "groups": 20}
    rows = list(csv.DictReader(io.StringIO(Path("all.valid.tsv").read_text()), delimiter="\t"))
    assert len(rows) == 20
