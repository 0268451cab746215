"""A fresh process that knows nothing of hfft: load each folder with plain transformers (and timm), print the scores.

Arguments: a JSON file with [{"folder", "kind", "inputs", "timm"}]; prints one JSON list of score matrices.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    logging,
)

logging.set_verbosity_error()
logging.disable_progress_bar()


def scores(job: dict) -> list[dict[str, float]]:
    if job["kind"] == "text":
        model = AutoModelForSequenceClassification.from_pretrained(job["folder"])
        tokenizer = AutoTokenizer.from_pretrained(job["folder"])
        inputs = tokenizer(job["inputs"], padding=True, return_tensors="pt")
        inputs = {name: inputs[name] for name in tokenizer.model_input_names if name in inputs}
    else:
        model = AutoModelForImageClassification.from_pretrained(job["folder"])
        processor = AutoImageProcessor.from_pretrained(job["folder"])
        inputs = processor([Image.open(path).convert("RGB") for path in job["inputs"]], return_tensors="pt")
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
        if job.get("timm"):
            import timm

            net = timm.create_model("local-dir:" + job["folder"], pretrained=True).eval()
            logits = net(inputs["pixel_values"])
    return [dict(zip(names, row, strict=True)) for row in logits.softmax(-1).tolist()]


if __name__ == "__main__":
    print(json.dumps([scores(job) for job in json.loads(Path(sys.argv[1]).read_text())]))
