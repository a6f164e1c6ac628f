"""A small TorchScript module with what libtorch's Python gives for it: two inputs, two outputs.

A convolutional classifier of random weights that takes a batch of images of bytes, and a temperature. It lies under
engine/tests/reference/tiny-classifier/, as a provider would keep it.
"""

import base64

import torch

from reference import MADE_WITH, REFERENCE, write

FOLDER = REFERENCE / "tiny-classifier"
INTERFACE = {
    "name": "tiny-classifier",
    "label": "image-classification",
    "inputs": [
        {"name": "images", "dtype": "u8", "shape": [-1, 1, 8, 8]},
        {"name": "temperature", "dtype": "f32", "shape": []},
    ],
    "outputs": [
        {"name": "probabilities", "dtype": "f32", "shape": [-1, 4]},
        {"name": "class", "dtype": "i64", "shape": [-1]},
    ],
}


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(6 * 16, 4)

    def forward(self, images: torch.Tensor, temperature: torch.Tensor):
        hidden = torch.relu(self.convolution(images.to(torch.float32) / 255.0))
        hidden = torch.nn.functional.max_pool2d(hidden, 2).flatten(1)
        probabilities = torch.softmax(self.head(self.dropout(hidden)) / temperature, dim=-1)
        return probabilities, probabilities.argmax(-1)


def tensor(name, value):
    dtypes = {torch.uint8: "u8", torch.float32: "f32", torch.int64: "i64"}
    data = base64.b64encode(value.contiguous().numpy().tobytes()).decode()
    return {"name": name, "dtype": dtypes[value.dtype], "shape": list(value.shape), "data": data}


def case(module, images, temperature):
    inputs = [images, torch.tensor(temperature)]
    with torch.no_grad():
        outputs = module(*inputs)
    named = lambda side, values: [tensor(slot["name"], value) for slot, value in zip(INTERFACE[side], values)]
    return {"inputs": named("inputs", inputs), "outputs": named("outputs", outputs)}


if __name__ == "__main__":
    torch.manual_seed(31)
    # Saved while it trains: who runs it has to switch dropout off.
    module = torch.jit.script(Classifier().train())
    FOLDER.mkdir(parents=True, exist_ok=True)
    module.save(str(FOLDER / "classifier.pt"))
    write(FOLDER / "module.json", INTERFACE)
    module.eval()
    images = [torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8) for count in (1, 3)]
    cases = [case(module, image, temperature) for image, temperature in zip(images, [1.0, 0.5])]
    write(REFERENCE / "tiny-classifier.json", {"made_with": MADE_WITH, "cases": cases})
