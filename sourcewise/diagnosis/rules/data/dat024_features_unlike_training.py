from sourcewise.data.readers.feature_record import differences
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.measures.unlike import APART, LESS, RATE, SCALE, SHIFT, TREND, features_unlike
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class FeaturesUnlikeTraining(Rule[Beside]):
    """How the features of a set differ from those of training, of which a run keeps a profile: level and spread of each
    dimension, correlations of dimensions, correlation of neighbouring frames, movement from the beginning of a clip to
    its end, frames per word of the target. Where `sourcewise features` made both, their records are compared, too:
    model, weights, layer, preprocessing, stride, rate.
    ## Why that is bad
    A model reads features at the scale, in the order and at the frame rate of training. Scaled, standardised, shuffled
    or turned ones are noise to it.
    ## Threshold and its origin
    Warning where dimensions lie {shift} deviation from those of training on average; vary {scale} times as much, or as
    little; where their correlations agree by less than {apart}; where neighbouring frames tell each other {less:words}
    as much; where what rises from beginning to end (by {trend} standard errors) falls; or where there are {rate} times
    as many frames a word, or as few. Measured: a new speaker 0.5 deviations, scaled features 1.6 to 166; neighbouring
    frames 0.93, shuffled 0.04.
    """

    code, name, level = "DAT024", "features unlike those of training", "warning"
    learned = False
    shift, scale, apart, less, trend, rate = SHIFT, SCALE, APART, LESS, TREND, RATE
    explains = "OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Extract the features of this set as those of training: the same model, layer, scaling, order of dimensions and"
        " frame rate. Ours are standardised by the training set alone; give both as they were extracted."
    )

    def check(self, beside: Beside) -> Findings:
        theirs, own = beside.trained.features, beside.own.features
        if theirs is None or own is None:
            return
        made = list(differences(beside.own.made, beside.trained.made))
        told = [f"made otherwise than those of training: {'; '.join(made)}"] if made else []
        if found := [*told, *features_unlike(theirs, own)]:
            yield self.finding(f"{beside.dataset.name}: " + "; ".join(found))
