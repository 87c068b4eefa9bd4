"""The upper end of the share of wrong records in a finite set, true at every look: whoever looks after each record and
stops when they like is wrong about at most one set of twenty.

Records are drawn one by one and not put back. The number of wrong ones among all, m, is excluded when what was seen is
twenty times as probable by a mixture as by m. For the true m this ratio is a martingale that begins at 1, so it ever
reaches twenty with a probability of at most 1/20 (Ville 1939). It is the prior-posterior ratio of Waudby-Smith and
Ramdas 2020 (arXiv 2006.04347, section 2). The prior of m is beta-binomial: then the mixture is Pólya's urn, and both
probabilities are exact and in closed form. It is centred on few wrong records and the same for every bound, so several
bounds may be tried.
"""

import math

_WRONG, _RIGHT = 0.5, 20.0
"""Of the prior, as counts. With others that expect few wrong records, about as many have to be seen."""
_LEVEL = 0.05


def anytime_upper(num_wrong: float, num_seen: int, num_all: int) -> float:
    """The largest share of wrong records in the set that is not excluded, at 95 %.

    Args:
        num_wrong: of those seen; it need not be whole, to plan with.
        num_seen: at least 1.
        num_all: the size of the set.
    """
    # The most probable number, which is never excluded; above it the ratio rises.
    least = max(math.floor(num_wrong * (num_all + 1) / num_seen), math.ceil(num_wrong))
    most = num_all - num_seen + math.floor(num_wrong)
    low, high = min(least, most), most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if log_ratio(num_wrong, num_seen, num_all, middle) < -math.log(_LEVEL):
            low = middle
        else:
            high = middle
    return low / num_all


def log_ratio(num_wrong: float, num_seen: int, num_all: int, wrong_in_all: int) -> float:
    """The logarithm of the probability of what was seen by the mixture, by that if `wrong_in_all` are wrong."""
    num_right = num_seen - num_wrong
    mixture = _log_beta(_WRONG + num_wrong, _RIGHT + num_right) - _log_beta(_WRONG, _RIGHT)
    drawn = _log_falling(wrong_in_all, num_wrong) + _log_falling(num_all - wrong_in_all, num_right)
    return mixture - (drawn - _log_falling(num_all, num_seen))


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


def _log_falling(number: float, times: float) -> float:
    """Of number · (number − 1) · …, with so many factors."""
    return math.lgamma(number + 1) - math.lgamma(number - times + 1)
