variable "project" {
  description = "The project of everything here: its id, not its number."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "Give the project's id: 6 to 30 lower-case letters, digits and dashes."
  }
}

variable "location" {
  description = "Where the bucket is: a region, or a multi-region such as EU. Can't be changed afterwards."
  type        = string
}

variable "bucket" {
  description = "The bucket for charts and manifests; its name is unique in all of Cloud Storage."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "Give the bare name, without gs://: 3 to 63 lower-case letters, digits, dashes, dots and underscores."
  }
}

variable "topic" {
  description = "The topic that the orchestrator publishes to; its full name if it is another project's."
  type        = string
  default     = "flow-steps"

  validation {
    condition = (
      can(regex("^(projects/[a-z][a-z0-9.:-]*[a-z0-9]/topics/)?[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", var.topic))
      && !startswith(basename(var.topic), "goog")
    )
    error_message = "Give an id or projects/P/topics/T; an id is 3 to 255 letters, digits and -._~+%, the first a letter."
  }
}

variable "create_topic" {
  description = "Whether to create the topic; false if the orchestrator's own configuration does."
  type        = bool
  default     = true
}

variable "subscription" {
  description = "The subscription that the workers pull."
  type        = string
  default     = "chart-export"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", var.subscription)) && !startswith(var.subscription, "goog")
    error_message = "Give an id, not a path: 3 to 255 letters, digits and -._~+%, the first a letter."
  }
}

variable "quarantine_topic" {
  description = "The topic for rejected messages; a subscription of the same name keeps them."
  type        = string
  default     = "chart-export-quarantine"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", var.quarantine_topic)) && !startswith(var.quarantine_topic, "goog")
    error_message = "Give an id, not a path: 3 to 255 letters, digits and -._~+%, the first a letter."
  }
}

variable "dead_letter_topic" {
  description = "The topic for messages that were delivered too often; a subscription of the same name keeps them."
  type        = string
  default     = "chart-export-dead"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", var.dead_letter_topic)) && !startswith(var.dead_letter_topic, "goog")
    error_message = "Give an id, not a path: 3 to 255 letters, digits and -._~+%, the first a letter."
  }
}

variable "max_delivery_attempts" {
  description = "After how many deliveries a message becomes a dead letter. Deferrals and restarts count."
  type        = number
  default     = 20

  validation {
    condition     = var.max_delivery_attempts >= 20 && var.max_delivery_attempts <= 100
    error_message = "At least 20, or healthy steps are lost; Pub/Sub takes at most 100."
  }
}

variable "ack_deadline_seconds" {
  description = "How long a worker has to ack before it first requests more time."
  type        = number
  default     = 60

  validation {
    condition     = var.ack_deadline_seconds >= 30 && var.ack_deadline_seconds <= 600
    error_message = "At least 30, or a short stall of the worker causes a second delivery; Pub/Sub takes at most 600."
  }
}

variable "retention_days" {
  description = "How long messages without an ack, rejected ones and dead letters are kept."
  type        = number
  default     = 7

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 31
    error_message = "1 to 31 days."
  }
}

variable "firestore_database" {
  description = "The Firestore database that holds the runs. It must exist: this module does not create it."
  type        = string
  default     = "(default)"
}

variable "delete_charts_after_days" {
  description = "Charts and manifests are deleted this many days after they were made; null keeps them."
  type        = number
  default     = null

  validation {
    condition     = var.delete_charts_after_days == null || try(var.delete_charts_after_days >= 1, false)
    error_message = "At least 1 day, or null."
  }
}

variable "candles_bucket" {
  description = "The bucket of the candles, if it is another one: only with CHARTS_API_MODE=local or CHARTS_FALLBACK=local."
  type        = string
  default     = null
}

variable "service_account_id" {
  description = "The id of the worker's Google service account; none is made with kubernetes_service_account."
  type        = string
  default     = "chart-export"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.service_account_id))
    error_message = "6 to 30 lower-case letters, digits and dashes."
  }
}

variable "kubernetes_service_account" {
  description = <<-EOT
    The Kubernetes service account that the workers run as, on a cluster of this project with Workload Identity
    Federation. The roles go straight to it, as deploy/gke/README.md does. For deploy/gke:
    { namespace = "chart-export", name = "worker-chart-export" }. Null: a Google service account gets them.
  EOT
  type = object({
    namespace = string
    name      = string
  })
  default = null
}

variable "worker_may_run_doctor" {
  description = "Whether the worker may read the subscription's settings: `worker-chart-export doctor` does, the daemon never."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels for topics, subscriptions and the bucket."
  type        = map(string)
  default     = {}
}
