-- MLflow's own database, beside Modelyard's.
CREATE DATABASE mlflow OWNER modelyard;
