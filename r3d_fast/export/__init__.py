"""Export: a trained model as a folder that predicts without the run, in Paddle Inference or as ONNX."""
