"""`Row`: what the table says about one initializer."""

from typing import NamedTuple


class Row(NamedTuple):
    """One initializer at its best learning rate, the one of lowest final training loss.

    Attributes:
      initializer: the spec.
      learning_rate: the best of those tried; the lowest number of diverged cells first.
      forward_ratio: standard deviation of the signal at the last layer over that at the
        first, at initialization; geometric mean over seeds.
      gradient_ratio: that of the gradient with respect to a layer's output, first layer
        over last.
      steps_to_target: median over seeds of the first step whose loss, averaged over its
        block, is at the target; None if half the seeds never reach it.
      final_loss: mean training loss over distinct runs, on all training rows.
      test_mean: mean test score over distinct runs: accuracy, or R^2 for regression.
      test_stddev: its standard deviation over them; nan for one run.
      test_error: standard error of the mean test score; nan for one run.
      test_low: lower end of its bootstrap interval of 95 %, as in `interval`, cut off
        at the range of the score; nan for one run.
      test_high: upper end.
      against_best: mean over seeds of the difference between its test score and that of
        the table's best initializer (see `Comparison.reference`), each at its own best
        learning rate; see `Comparison.effect`.
      against_best_low: lower end of the interval of these differences.
      against_best_high: upper end.
      effect: "best" for that initializer itself, unless nothing trains; for others
        "better" or "worse" in test score where the interval excludes 0 and there are 3
        seeds or more, otherwise "cannot tell". Each row is a comparison of its own: of
        twenty initializers as good as the best, one is expected to show an effect, and
        up to three where a low training loss, by which the best is chosen, goes along
        with a high test score. More seeds do not lower this.
      rates_that_train: decades of learning rates that train, as in `sensitivity`; nan
        where none does.
      share_that_trains: share of the learning rates tried that train.
      diverged: share of diverged cells over all learning rates. A cell has diverged
        when its loss is not finite, or in the end more than twice that of the best
        constant prediction.
      distinct_runs: how many of its seeds' runs differ: one for an initializer without
        randomness, see `Comparison.distinct`.
      trained: how many of these learned anything, see `Comparison.trained`; 0 where it
        does not train.
      seeds_needed: where the effect cannot be told, how many seeds would be needed for
        one of this size, as in `statistics.Effect`.
    """

    initializer: str
    learning_rate: float
    forward_ratio: float
    gradient_ratio: float
    steps_to_target: float | None
    final_loss: float
    test_mean: float
    test_stddev: float
    test_error: float
    test_low: float
    test_high: float
    against_best: float
    against_best_low: float
    against_best_high: float
    effect: str
    rates_that_train: float
    share_that_trains: float
    diverged: float
    distinct_runs: int
    trained: int
    seeds_needed: float
