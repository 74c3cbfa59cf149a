"""Export: writes a trained model as a folder that predicts without its run, in Paddle Inference or as ONNX."""
