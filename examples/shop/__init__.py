"""A small shop of three services, written as one would without a mesh.

    GET / ----> web ----HTTP/1.1----> catalogue ----gRPC----> prices

They find each other by name (`http://catalogue.shop`, `prices.shop:9090`).  None of them does TLS, retries or load
balancing.  What makes them good for a demonstration is that they say what happened: each reply lists the hops it
passed (service, version, pod, and who the caller was according to the sidecar), and each app writes one line a
request into a ledger, so that afterwards somebody can count.
"""
