"""A real API server of Kubernetes on etcd, without controllers, schedulers and nodes."""
