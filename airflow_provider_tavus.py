"""
Nothing: the code is in ``tavus_provider``.

To find example DAGs, Airflow 3.3 imports a module named like the distribution of each provider. Without this
one, every task and command logs ``Could not load provider module airflow_provider_tavus`` if
``[core] load_examples`` is on (https://github.com/apache/airflow/issues/66305).
"""
