from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.pairs import quoted
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class NoTaskPrefix(Rule[Asking]):
    """Whether source texts begin with one of the prefixes that the model's folder names for its tasks
    (task_specific_params in config.json, such as "translate English to German: ").
    ## Why that is bad
    The prefix says which task is meant. Without it a model of several tasks does another one, or none.
    ## Threshold and its origin
    Warning where at most {share:words} of the sources begin with any of them. A model that was trained further, on a
    task of its own without a prefix, needs none.
    """

    code, name, level = "DAT025", "no source has the prefix that the model's folder names", "warning"
    learned = False
    share = 0.1  # of the sources
    explains = "OUT00* SRC*"
    cures = Cure(
        "Put the prefix of the task before each source, with its space; or take the prefixes out of config.json, where "
        "the model was trained without them:",
        {"data.test.prefix": "translate English to German: "},
        instead="Put the prefix of the task before each source, with its space; or take the prefixes out of "
        "config.json, where the model was trained without them.",
    )

    def check(self, asking: Asking) -> Findings:
        sources = [example.source for part in asking.encoded.parts for example in part.dataset]
        if not asking.prefixes or not any(sources):
            return
        having = sum(source.startswith(tuple(asking.prefixes)) for source in sources)
        if having <= self.share * len(sources):
            named = ", ".join(quoted(prefix) for prefix in dict.fromkeys(asking.prefixes))
            yield self.finding(f"{having} of {len(sources):,} sources begin with one of {named}")
