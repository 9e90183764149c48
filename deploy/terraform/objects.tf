resource "google_storage_bucket" "charts" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false # Terraform deletes no bucket that holds charts
  labels                      = var.labels

  # Allows to undo what a stolen identity deletes.
  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  dynamic "lifecycle_rule" {
    for_each = var.delete_charts_after_days == null ? [] : [var.delete_charts_after_days]

    content {
      action {
        type = "Delete"
      }

      condition {
        age            = lifecycle_rule.value
        matches_prefix = ["charts/"]
      }
    }
  }
}
