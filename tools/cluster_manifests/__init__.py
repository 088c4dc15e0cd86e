"""What `make manifests` and `make deploy` do: render k8s/ for one cluster, check what comes out, apply it."""
