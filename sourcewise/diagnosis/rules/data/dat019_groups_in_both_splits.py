from collections.abc import Collection

from sourcewise.data.examples import Dataset
from sourcewise.data.groups import PEOPLE, groups_in
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.leaks import ROWS, line
from sourcewise.diagnosis.pairs import Pairs, made_of_text, quoted
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule

Grouped = dict[str, dict[str, list[int]]]


class GroupsInBothSplits(Rule[Pairs]):
    """The share of validation and test examples whose recording, signer, speaker or group is in the training set too:
    by columns such as video_id, signer, speaker_id or group, or by what `data.group` finds in the ids.
    ## Why that is bad
    Clips of one recording share words, people, light and sound. The figures then do not say how well the model does on
    a recording, or a person, that it has never met; on sign-language sets such splits give several times the BLEU.
    ## Threshold and its origin
    Warning from {share:%} of the examples for recordings and groups. A note below that; for people, whom official
    splits of speech and sign language often share (all speakers of fsdd, all signers of the weather forecasts); and
    where both sets number their groups from the first on, perhaps each for itself. Ours.
    """

    code, name, level = "DAT019", "groups in both splits", "warning"
    share = 0.05  # of the examples
    cures = Cure(
        "Split the data anew, groups whole; else say beside each figure what both splits share:",
        "sourcewise split ALL.tsv --by recording --valid 10% --test 10%",
    )

    def check(self, pairs: Pairs) -> Findings:
        train = pairs.train.dataset
        if made_of_text(pairs.train) or not any(example.group for example in train):
            return
        known = groups_in(train)
        said: list[tuple[Level, str]] = []
        for use, held in pairs.held_out():
            found, groups = [], groups_in(held)
            if not groups:
                named = " or ".join(known)
                yield CannotTell(f"whether {use} and training set share a {named}", f"{held.name} names none")
            for kind in sorted(groups.keys() & known.keys(), key=lambda kind: kind in PEOPLE):
                found += self.shared(kind, groups[kind], known[kind], held, train)
            if found:
                levels = [level for level, _ in found]
                level: Level = "warning" if "warning" in levels else "note"
                said.append((level, f"{held.name}: " + "; ".join(words for _, words in found)))
        if said:
            gravest: Level = "warning" if any(level == "warning" for level, _ in said) else "note"
            yield self.finding("; ".join(words for _, words in said), gravest)

    def shared(
        self, kind: str, groups: dict[str, list[int]], known: dict[str, list[int]], held: Dataset, train: Dataset
    ) -> list[tuple[Level, str]]:
        """What is shared of one kind: how grave, and in words with the first rows."""
        both = [group for group in groups if group in known]
        if not both:
            return []
        places = sorted(place for group in both for place in groups[group])
        all_of = sum(map(len, groups.values()))
        first = held[places[0]].group[kind]
        more = ", …" * (len(places) > ROWS)
        first_lines = ", ".join(line(held[place].where) for place in places[:ROWS])
        file = train[known[first][0]].where.rpartition("/")[2]
        words = (
            f"the {kind} of {len(places):,} of {all_of:,} examples is in the training set ({len(both):,} of "
            f"{len(groups):,}; such as {quoted(first)} of {file}; lines {first_lines}{more})"
        )
        if anew := numbered(groups) and numbered(known):
            words += "; these are numbers from the first on, which may begin anew in each file"
        grave = kind not in PEOPLE and len(places) >= self.share * len(held) and not anew
        return [("warning" if grave else "note", words)]


def numbered(names: Collection[str]) -> bool:
    """Whether groups are called 0, 1, 2, … or 1, 2, 3, … without a gap."""
    numbers = {int(name) for name in names if name.isascii() and name.isdecimal()}
    return len(numbers) == len(names) > 1 and min(numbers) <= 1 and max(numbers) - min(numbers) == len(numbers) - 1
