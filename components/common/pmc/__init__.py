"""PubMed Central's Cloud Service: the bucket, its inventories and its metadata.

The contract: https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/. One bucket, anonymous reads; `metadata/PMC<id>.<version>.json`
says of each article version what it is and where its XML lies; a daily S3 Inventory lists the metadata.
"""
