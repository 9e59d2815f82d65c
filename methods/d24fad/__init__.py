"""D²4FAD: dual distillation for few-shot anomaly detection (ICLR 2026)."""
