"""What operators see of inferd: metrics, traces and logs, each declared once."""
