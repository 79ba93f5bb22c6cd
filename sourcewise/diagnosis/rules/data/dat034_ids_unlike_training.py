from sourcewise.diagnosis.against import Against, edge, risen, share_at, strange
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class IdsUnlikeTraining(Rule[Against]):
    """In a training of others whose texts are ids: which id the sources, and the targets, of the training begin and end
    with, and how many of an evaluation do; the id whose share of all tokens of the sources has risen most; and how many
    tokens have an id that the training never has.

    ## Why that is bad
    A source that lacks the end of text, the code of its language or its prefix is none that the model has ever read. An
    id that was rare and is everywhere stands for words that are unknown: they were split, spelt or numbered otherwise.

    ## Threshold and its origin
    A warning where {most:%} of the training begin or end with one id, and {fewest:%} of the evaluation or fewer; and
    where an id has at most {rare:%} of the tokens in training and {common:%} or more, and {times} times as many, in the
    evaluation; and where {new:%} of the tokens have an id that never was in training, {times} times as many as in its
    later rows beside its earlier ones: ids of another tokenizer, or a cache of one. Ours.
    """

    code, name, level, rank = "DAT034", "ids of an evaluation are unlike those of training", "warning", 22.1
    learned = False
    most, fewest = 0.95, 0.05  # of the rows
    rare, common, times, new = 0.05, 0.15, 5, 0.15  # of the tokens
    explains = "TRN010 TRN011 SRC* OUT00* OUT019"
    cures = Cure(
        "Make ids for evaluation and use by the very function that makes those of training, with the same vocabulary, "
        "the same special tokens and the same preparation of texts:",
        'tokenizer(text, add_special_tokens=True)["input_ids"]  # for each set',
    )

    def check(self, against: Against) -> Findings:
        """See the page."""
        if not against.enough:
            return
        said = []
        for side in ("sources", "targets"):
            before, now = getattr(against.trained, side), getattr(against.own, side)
            for place, words in ((0, "begin"), (-1, "end")):
                token, share = edge(before, place)
                found = share_at(now, place, token)
                if share >= self.most and found <= self.fewest and any(len(row) > 1 for row in now):
                    said.append(
                        f"{100 * share:.0f} % of the {side} {words} with {token} in training, {100 * found:.0f} %"
                    )
            share, usual = strange(before, now)
            if share >= max(self.new, self.times * usual):
                words = (
                    f"{100 * share:.0f} % of the tokens of {side} have an id that the {side} of the training never had"
                )
                said.append(f"{words} ({100 * usual:.1f} % by nature)")
        token, before_share, share = risen(against.trained.sources, against.own.sources)
        if before_share <= self.rare and share >= max(self.common, self.times * before_share):
            said.append(
                f"id {token} is {100 * before_share:.1f} % of the tokens of sources in training, {100 * share:.0f} %"
            )
        if said:
            yield self.finding(f"{'; '.join(said)} in {against.name or 'the evaluation'}")
