"""
The example DAGs, installed as ``tavus_provider.dags``.

Airflow reads them from this folder (a DAG bundle) or from copies; see docs/dags.md. Nothing imports them.
"""
