"""Label smoothing: the target is 1 - alpha on the true class and alpha spread evenly over all classes.

Paper: Rethinking the Inception Architecture, section 7, https://arxiv.org/abs/1512.00567; when it helps:
https://arxiv.org/abs/1906.02629. Same arithmetic as torch.nn.functional.cross_entropy(label_smoothing=alpha), written
as (1 - alpha) · loss + alpha · cross entropy against the even distribution, so that it adds to any loss.
"""

from hfft.messages import InputError


def label_smoothing(loss, *, alpha: float = 0.1, task):
    """(1 - alpha) of the loss, and alpha of the mean over classes of -log p, summed over units and divided by `items`.

    `alpha` in [0, 1). Labels of -100 count for nothing. Raises InputError for another `alpha`, and for a task without
    one right class.
    """
    if task.whole_batch or task.truth not in ("class", "tags", None):
        raise InputError("objectives: label_smoothing: spreads one right class over the others, which this task lacks")
    if not 0 <= alpha < 1:
        raise InputError(f"objectives: label_smoothing: alpha must be in [0, 1), not {alpha}")

    def smoothed(model, inputs, items=None):
        value, outputs = loss(model, inputs, items)
        counted = inputs["labels"] != -100  # (batch,) or (batch, tokens)
        even = -outputs.logits.float().log_softmax(-1).mean(-1)[counted].sum()
        return (1 - alpha) * value + alpha * even / (counted.sum() if items is None else items), outputs

    return smoothed
