# The same as ../firestore.indexes.json, which the Firebase command line deploys. Not read from there, because Terraform copies
# only the folder of a module.

# Finds expired leases over all runs.
resource "google_firestore_field" "expires_at" {
  project    = var.project
  database   = var.firestore_database
  collection = "chart_export_leases"
  field      = "expiresAt"

  index_config {
    indexes {
      order       = "ASCENDING"
      query_scope = "COLLECTION"
    }

    indexes {
      order       = "DESCENDING"
      query_scope = "COLLECTION"
    }

    indexes {
      order       = "ASCENDING"
      query_scope = "COLLECTION_GROUP"
    }
  }
}

# In no index: a run of hundreds of steps would otherwise reach Firestore's limit of index entries.
resource "google_firestore_field" "steps" {
  project    = var.project
  database   = var.firestore_database
  collection = "flow_runs"
  field      = "steps"

  index_config {}
}
