from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class DrawnByChance(Rule[Asking]):
    """Whether outputs are drawn at random: do_sample of a folder's generation_config.json or of a Trainer's model; in
    plain PyTorch, outputs of one batch that are others when they are made again.

    ## Why that is bad
    A drawn token is a wrong one as often as the network is unsure, and what follows goes on from it. A figure of such
    outputs is lower than that of the likeliest ones, and another one each time. Settings of a chat model, and a
    multinomial that was written for stories, stay on where one right answer is asked for.

    ## Threshold and its origin
    A warning wherever outputs are drawn, since there may be a reason: many samples of one source, or free text. In a
    loop, where {share:words} of the outputs of a batch or more are others the second time, in eval mode.
    """

    code, name, level = "OUT022", "outputs are drawn by chance", "warning"
    learned = False
    share = 0.1  # of the outputs of a batch
    explained_by = "WIR021 OUT020"
    explains = "OUT00* TRN011"
    cures = Cure(
        "Say the likeliest token, or search by beams, where outputs are held against references:",
        {"generation.sample": False},
        instead="Say the likeliest token (argmax), or search by beams, where outputs are held against references.",
    )

    def check(self, asking: Asking) -> Findings:
        """See the page."""
        if asking.drawn:
            yield self.finding(asking.drawn)
