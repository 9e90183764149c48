# What docs/operations.md, section 1, creates with gcloud. `worker-chart-export doctor` finds nothing wrong with it.

locals {
  topic     = var.create_topic ? google_pubsub_topic.steps[0].id : var.topic
  retention = "${var.retention_days * 86400}s"
}

resource "google_pubsub_topic" "steps" {
  count = var.create_topic ? 1 : 0

  project = var.project
  name    = var.topic
  labels  = var.labels

  lifecycle {
    precondition {
      condition     = !strcontains(var.topic, "/")
      error_message = "A topic with its full name is not created here: give its id, or create_topic = false."
    }
  }
}

resource "google_pubsub_subscription" "worker" {
  project                      = var.project
  name                         = var.subscription
  topic                        = local.topic
  ack_deadline_seconds         = var.ack_deadline_seconds
  message_retention_duration   = local.retention
  enable_message_ordering      = false # one step that waits would hold up all that have its key
  enable_exactly_once_delivery = false # slower, and of no use: the claim in Firestore keeps steps single
  labels                       = var.labels

  # A released message must not come back at once.
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = var.max_delivery_attempts
  }

  # Never, even if no worker runs for a long time.
  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "quarantine" {
  project = var.project
  name    = var.quarantine_topic
  labels  = var.labels
}

# A message to a topic without a subscription is lost.
resource "google_pubsub_subscription" "quarantine" {
  project                    = var.project
  name                       = var.quarantine_topic
  topic                      = google_pubsub_topic.quarantine.id
  message_retention_duration = local.retention
  labels                     = var.labels

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project = var.project
  name    = var.dead_letter_topic
  labels  = var.labels
}

resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project
  name                       = var.dead_letter_topic
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = local.retention
  labels                     = var.labels

  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub's own service agent moves dead letters, and needs both roles.
resource "google_pubsub_topic_iam_member" "agent_publishes_dead_letters" {
  project = var.project
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_acks_dead_letters" {
  project      = var.project
  subscription = google_pubsub_subscription.worker.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent

  # If the subscription is replaced, its grants are lost although its name stays.
  lifecycle {
    replace_triggered_by = [google_pubsub_subscription.worker.id]
  }
}
