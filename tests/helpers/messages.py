"""The words of an error, without what a framework wraps around them."""

import re

# TF puts places before the words, the op's name and the graph's nodes behind them.
_WORDS = re.compile(
    r"(?:max_unpool|max_pool_with_argmax|multilevel_roi_align|roi_align|fpn_levels|soft_dice_sums"
    r"|permutohedral_lattice|gaussian_filter|mean_field_step|dense_crf): '.*",
    re.DOTALL,
)
_BEHIND = re.compile(r" \[Op:| for '\{\{node |\n|$")


def words_of(error: BaseException) -> str:
    """Returns `op: 'argument' rule, got value` out of an error's text, to the last letter."""
    text = str(error)
    found = _WORDS.search(text)
    if found is None:
        return text
    return _BEHIND.split(found.group(), maxsplit=1)[0]
