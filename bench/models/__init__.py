"""Models that people initialize: sizes are arguments, so that tests have small ones."""

from bench.models.checked import LSTM as LSTM
from bench.models.checked import Autoencoder as Autoencoder
from bench.models.checked import Perceptron as Perceptron
from bench.models.checked import ResNet18 as ResNet18
from bench.models.checked import Transformer as Transformer
from bench.models.large import GPT as GPT
from bench.models.large import ResNet as ResNet
from bench.models.large import ViT as ViT
from bench.models.large import build_torch_gpt as build_torch_gpt
from bench.models.large import build_torch_resnet as build_torch_resnet
from bench.models.large import build_torch_vit as build_torch_vit
