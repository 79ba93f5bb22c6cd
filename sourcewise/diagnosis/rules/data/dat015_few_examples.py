import math

from sourcewise.diagnosis.pairs import Pairs, made_of_text, named
from sourcewise.diagnosis.rule import Findings, Rule


class FewExamples(Rule[Pairs]):
    """
    ## What it measures
    How many examples there are to train random weights with, and how often each would be seen.

    ## Why that is bad
    They are learned by heart: the loss reaches zero and says nothing. Often a limit that was set to try the
    recipe is still in it.

    ## Threshold and its origin
    Fewer than {examples}, seen {times} times each and more. Ours; the smallest set of a recipe here has 1,000.

    ## What to do
    All examples, or pretrained weights to start from:
        --data.train.limit null
        --model.weights NAME
    Or a loss that aligns targets with sources; and, in a long training, each example anew every time:
        --train.guided_attention 1 --train.ctc_weight 0.3
        --train.augment.time_masks 2 --train.augment.frequency_masks 2 --train.augment.speed 0.15
        --train.text_noise.drop 0.1 --train.text_noise.swap 0.1
    """

    code, name, level = "DAT015", "few examples", "warning"
    rank = 4.3
    examples, times = 100, 20

    def check(self, pairs: Pairs) -> Findings:
        train, recipe = pairs.train, pairs.recipe
        if recipe is None or len(train) >= self.examples or recipe.model.weights or made_of_text(train):
            return
        options = recipe.train
        tokens = int(train.source_lengths.sum() + train.target_lengths.sum())
        batches = math.ceil(max(tokens / options.batch_tokens, len(train) / (options.batch_size or len(train))))
        epochs = options.steps * options.accumulate / batches if options.steps else options.epochs
        if epochs >= self.times:
            evidence = f"{len(train)} examples, each of which the training sees {epochs:.0f} times"
            limits = [config.limit for config in recipe.data.sets("train") if config.limit]
            if limits:
                evidence += f"; data.train.limit is {', '.join(map(str, limits))}"
            yield self.finding(named(train, evidence))
