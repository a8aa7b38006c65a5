"""VSML for scikit-learn: a classifier and a regressor that learn online, and a test of such classifiers.

from sklearn.datasets import load_wine
from vsml.sklearn import VSMLClassifier, learn_online
print(learn_online(VSMLClassifier(), *load_wine(return_X_y=True), shuffle_seed=0))
"""

from vsml.online.classifier import VSMLClassifier
from vsml.online.estimator import GRADIENT_DESCENT, Scale
from vsml.online.inputs import check_dense, check_labels
from vsml.online.prequential import OnlineResult, learn_online
from vsml.online.regressor import VSMLRegressor
from vsml.online.steps import MAX_UNITS, MIN_UNITS

__all__ = [
    "GRADIENT_DESCENT",
    "MAX_UNITS",
    "MIN_UNITS",
    "OnlineResult",
    "Scale",
    "VSMLClassifier",
    "VSMLRegressor",
    "check_dense",
    "check_labels",
    "learn_online",
]

# Pickles name a class by its module, and this one is where users import it from.
VSMLClassifier.__module__ = __name__
VSMLRegressor.__module__ = __name__
