"""ONNX files: read without a runtime, written for any runtime."""
