from sourcewise.diagnosis.course import MEASURED, Course, middle
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class DropoutDrownsWhatIsLearned(Rule[Course]):
    """How far the training loss (with dropout) and the validation loss (without) are below the entropy of the target
    tokens' frequencies.
    ## Why that is bad
    What the network knows does not get through its own noise: it learns from a third of its signal, or less.
    ## Threshold and its origin
    At a dropout of {dropout} and more: training shows less than {share:words} of what validation does, which is at
    least {nats} nats. While the training goes on and gets better, a note: in its first hundreds of steps a small
    Transformer with a dropout of 0.3 is so, and healthy. {measured}: at dropout 0.1 to 0.3 four fifths and more.
    """

    code, name, level, rank = "TRN012", "dropout drowns what is learned", "warning", 1.3
    explained_by = "WIR018"
    learned = True  # a loss that still falls fast gets past its noise by itself
    dropout, share, nats, measured = 0.3, 1 / 3, 0.5, MEASURED
    cures = Cure("", {"model.dropout": 0.1}, instead="Less dropout in the configuration of the model.")

    def check(self, course: Course) -> Findings:
        line = course.evaluations[-1] if course.evaluations else {}
        entropy, loss = course.target_entropy, line.get("loss")
        recent = [float(each["loss"]) for each in course.train if each["step"] <= line.get("step", 0)][-3:]
        if course.broken or not entropy or loss is None or not recent:
            return
        name, dropout = course.plan.dropout or ("", 0.0)
        if dropout < self.dropout:
            return
        known, shown = entropy - float(loss), entropy - middle(recent)
        if known < self.nats or shown > self.share * known:
            return
        evidence = f"at step {line['step']} the validation loss, without dropout, is {loss:.2f} nats, the training loss"
        evidence += f", with it, {middle(recent):.2f}; tokens' frequencies alone give {entropy:.2f}"
        yield self.finding(f"{evidence}; {name} is {dropout}")
