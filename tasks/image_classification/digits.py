"""The handwritten digits that scikit-learn carries: real scans, no download."""

import torch

from .data import InMemoryData, Pictures


class Digits(InMemoryData):
    """1,797 scans of the digits 0 to 9, 8 x 8, grey (Alpaydin and Kaynak 1998: the test part of their data).

    The file is in the order of the writers. The last 360 (20 %) are the test split, so that its writers are mostly
    new. Of the others the first `val_fraction` validate: writers that training and test do not have. Values 0 to 16
    become pixels 0 to 255.

    Its arguments are those of `InMemoryData`.
    """

    TEST = 360

    def read(self) -> Pictures:
        """Read scikit-learn's copy."""
        # Imported here: it takes a second, which other data need not wait.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images * (255.0 / 16.0)).round().to(torch.uint8)[..., None]
        targets = torch.from_numpy(bunch.target).long()
        return Pictures(
            # Backwards, since the end of the training part validates.
            train=images[: -self.TEST].flip(0),
            train_targets=targets[: -self.TEST].flip(0),
            test=images[-self.TEST :],
            test_targets=targets[-self.TEST :],
            classes=[str(name) for name in bunch.target_names],
        )
